//! What the parts of a running server hold now and is not counted elsewhere: the listeners, their receive
//! buffers and what the kernel dropped there, QUIC handshakes in flight, remotes over SCION. For metrics, the page
//! and checks of health.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::server::Listening;

/// The receive buffers of a listener's UDP sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceiveBuffer {
    pub(crate) listener: Listening,
    /// Bytes per socket that the configuration asks for.
    pub(crate) asked: usize,
    /// Bytes per socket that the kernel granted.
    pub(crate) granted: usize,
    /// Datagrams that the kernel dropped at all sockets of the listener since the start.
    pub(crate) dropped: u64,
}

/// Reads a number that somebody else keeps.
type Read = Arc<dyn Fn() -> usize + Send + Sync>;

/// One per server.
pub(crate) struct Gauges {
    pub(crate) started: SystemTime,
    is_stopping: AtomicBool,
    listeners: Mutex<Vec<Listening>>,
    receive_buffers: Mutex<Vec<ReceiveBuffer>>,
    handshakes: Mutex<Vec<Arc<AtomicUsize>>>,
    remotes: Mutex<Vec<Read>>,
}

impl Default for Gauges {
    fn default() -> Self {
        Self {
            started: SystemTime::now(),
            is_stopping: AtomicBool::new(false),
            listeners: Mutex::default(),
            receive_buffers: Mutex::default(),
            handshakes: Mutex::default(),
            remotes: Mutex::default(),
        }
    }
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

impl Gauges {
    /// Notes that a listener takes requests.
    pub(crate) fn add_listeners(&self, listeners: impl IntoIterator<Item = Listening>) {
        self.listeners.lock().extend(listeners);
    }

    /// Notes that the server stops: its listeners take no new connections.
    pub(crate) fn set_stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn add_receive_buffer(&self, buffer: ReceiveBuffer) {
        self.receive_buffers.lock().push(buffer);
    }

    /// Counts datagrams that the kernel dropped at a listener.
    pub(crate) fn add_dropped(&self, listener: Listening, new: u64) {
        let mut buffers = self.receive_buffers.lock();
        if let Some(buffer) = buffers.iter_mut().find(|it| it.listener == listener) {
            buffer.dropped += new;
        }
    }

    /// Adds a listener's number of QUIC handshakes in flight.
    pub(crate) fn add_handshakes(&self, in_flight: Arc<AtomicUsize>) {
        self.handshakes.lock().push(in_flight);
    }

    /// Adds the number of a SCION socket's remotes.
    pub(crate) fn add_remotes(&self, read: impl Fn() -> usize + Send + Sync + 'static) {
        self.remotes.lock().push(Arc::new(read));
    }

    /// The listeners that were started.
    pub(crate) fn listeners(&self) -> Vec<Listening> {
        self.listeners.lock().clone()
    }

    pub(crate) fn receive_buffers(&self) -> Vec<ReceiveBuffer> {
        self.receive_buffers.lock().clone()
    }

    /// The most QUIC handshakes in flight at any listener: each has the whole limit.
    pub(crate) fn handshakes(&self) -> usize {
        let all = self.handshakes.lock();
        let all = all.iter().map(|it| it.load(Ordering::Relaxed));
        all.max().unwrap_or(0)
    }

    /// Remotes of QUIC over SCION, of all sockets.
    pub(crate) fn remotes(&self) -> usize {
        let all = self.remotes.lock().clone();
        all.iter().map(|read| read()).sum()
    }
}
