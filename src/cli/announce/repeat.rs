//! Announces again and again until it is stopped, as a BitTorrent client does. Independent of
//! transports and output.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use scion_tracker_core::request::Event;
use tokio::time::{sleep, timeout};

/// The shortest wait between two announces, whatever the tracker says.
const SHORTEST: Duration = Duration::from_secs(1);
/// The wait after a failure, doubled after each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_secs(30 * 60);
/// Time for the last announce, for which the end of the program waits.
const FAREWELL: Duration = Duration::from_secs(3);

/// Announces `started`, then without an event after each interval that `announce` returns, and
/// `stopped` when `stop` ends. After a failure it waits longer; `failed` gets the error and the wait.
pub(super) async fn repeat<E>(
    mut announce: impl AsyncFnMut(Event) -> Result<Duration, E>,
    failed: impl Fn(&E, Duration),
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut event = Event::Started;
    let mut retry = FIRST_RETRY;
    loop {
        let announced = tokio::select! {
            biased;
            () = &mut stop => break,
            announced = announce(event) => announced,
        };
        let wait = match announced {
            Ok(interval) => {
                event = Event::None;
                retry = FIRST_RETRY;
                interval.max(SHORTEST)
            }
            Err(error) => {
                let wait = retry;
                retry = (retry * 2).min(LAST_RETRY);
                failed(&error, wait);
                wait
            }
        };
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = sleep(wait) => {}
        }
    }
    // Even if no announce was answered: one of them may have arrived. Failure is ignored, as trackers
    // forget peers that do not announce.
    let _ = timeout(FAREWELL, announce(Event::Stopped)).await;
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    /// The answers of a tracker, in order, and then none at all.
    async fn run(answers: &[Result<u64, ()>], stop_after: u64) -> Vec<(u64, Event)> {
        let start = Instant::now();
        let seen = RefCell::new(Vec::new());
        let failures = RefCell::new(0);
        let announce = async |event| {
            let number = seen.borrow().len();
            seen.borrow_mut().push((start.elapsed().as_secs(), event));
            match answers.get(number) {
                Some(answer) => answer.map(Duration::from_secs),
                None => std::future::pending().await,
            }
        };
        let failed = |(): &(), _| *failures.borrow_mut() += 1;
        repeat(announce, failed, sleep(Duration::from_secs(stop_after))).await;
        assert!(start.elapsed() <= Duration::from_secs(stop_after) + FAREWELL);
        let seen = seen.into_inner();
        // All but the farewell.
        let answered = answers.iter().take(seen.len() - 1);
        let errors = answered.filter(|answer| answer.is_err()).count();
        assert_eq!(failures.into_inner(), errors);
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn announces_at_the_interval_and_takes_leave() {
        let seen = run(&[Ok(60), Ok(90), Ok(0), Ok(1000)], 200).await;
        let expected = [
            (0, Event::Started),
            (60, Event::None),
            (150, Event::None),
            (151, Event::None),
            (200, Event::Stopped),
        ];
        assert_eq!(seen, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_ever_later() {
        let seen = run(&[Err(()), Err(()), Ok(30), Err(()), Ok(500)], 100).await;
        let expected = [
            (0, Event::Started),
            (5, Event::Started),
            (15, Event::Started),
            (45, Event::None),
            (50, Event::None),
            (100, Event::Stopped),
        ];
        assert_eq!(seen, expected);
        let never = run(&[Err(()); 100], 40 * 3600).await;
        let waits = never.windows(2).map(|pair| pair[1].0 - pair[0].0);
        assert_eq!(waits.max(), Some(LAST_RETRY.as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_does_not_hold_up_the_end() {
        let seen = run(&[], 10).await;
        assert_eq!(seen, [(0, Event::Started), (10, Event::Stopped)]);
    }
}
