//! Errors of receiving for tests, because the system causes them only when it is short of memory.

use std::io;
use std::net::UdpSocket;

use parking_lot::Mutex;

/// The local ports and the errors of their next calls, in order.
static ERRORS: Mutex<Vec<(u16, i32)>> = Mutex::new(Vec::new());

/// Lets the next calls that receive on this local port fail with these errors.
pub(crate) fn fail_next(port: u16, codes: &[i32]) {
    ERRORS.lock().extend(codes.iter().map(|code| (port, *code)));
}

/// The error for a call on this socket.
pub(super) fn take(socket: &UdpSocket) -> Option<io::Error> {
    let errors = &mut *ERRORS.lock();
    if errors.is_empty() {
        return None;
    }
    let port = socket.local_addr().ok()?.port();
    let at = errors.iter().position(|(of, _)| *of == port)?;
    Some(io::Error::from_raw_os_error(errors.remove(at).1))
}
