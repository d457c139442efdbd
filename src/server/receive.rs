//! What an operator has to know about the receive buffers of UDP sockets: whether the kernel granted them,
//! and whether they were full.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::RunError;
use super::listener::Listening;
use crate::counters::Counter;
use crate::gauges::ReceiveBuffer;
use crate::service::Service;
use crate::socket::kernel_drops;

/// How often the drops are read. A system call per socket.
const TICK: Duration = Duration::from_secs(1);
/// Shortest time between two lines about drops of a listener.
const QUIET: Duration = Duration::from_secs(60);

/// Reads the size of the receive buffers. Logs that they are smaller than asked.
pub(super) fn report_size(
    sockets: &[UdpSocket],
    asked: usize,
    listener: Listening,
) -> Option<ReceiveBuffer> {
    let granted = SockRef::from(sockets.first()?).recv_buffer_size().ok()?;
    // Linux doubles what it is asked for, and returns that: half of it is for its own bookkeeping.
    let granted = match cfg!(any(target_os = "linux", target_os = "android")) {
        true => granted / 2,
        false => granted,
    };
    if granted < asked {
        // No warning: the default is above what most systems grant, and drops are warned of.
        tracing::info!(
            %listener,
            asked,
            granted,
            "the receive buffer is smaller than udp.receive_buffer: the kernel drops datagrams in bursts; \
             raise net.core.rmem_max, or lower udp.receive_buffer"
        );
    }
    Some(ReceiveBuffer {
        listener,
        asked,
        granted,
        dropped: 0,
    })
}

/// Counts the datagrams that the kernel drops at these sockets, until it is stopped. Workers do nothing for
/// it.
pub(super) async fn count_drops(
    sockets: Vec<UdpSocket>,
    listener: Listening,
    service: Arc<Service>,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let mut sockets: Vec<_> = sockets.into_iter().map(|socket| (socket, 0)).collect();
    let mut read = || {
        let new = sockets.iter_mut().map(|(socket, known)| {
            let drops = kernel_drops(socket).unwrap_or(*known);
            u64::from(drops.wrapping_sub(std::mem::replace(known, drops)))
        });
        let new = new.sum();
        if new > 0 {
            service.counters.add(Counter::UdpKernelDrops, new);
            service.gauges.add_dropped(listener, new);
        }
        new
    };
    let endless = async {
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unsaid = 0;
        let mut last: Option<Instant> = None;
        loop {
            let now = ticks.tick().await;
            unsaid += read();
            if unsaid > 0 && last.is_none_or(|last| now.duration_since(last) >= QUIET) {
                tracing::warn!(
                    %listener,
                    dropped = unsaid,
                    "the kernel dropped datagrams: the receive buffer was full"
                );
                unsaid = 0;
                last = Some(now);
            }
        }
    };
    stop.run_until_cancelled(endless).await;
    read();
    Ok(())
}
