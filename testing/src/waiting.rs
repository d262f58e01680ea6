//! Waiting for something to have happened, with a bound that fails the test.
//!
//! Nothing here waits for time to have passed. A clock that is paused stands still while anybody has
//! something to do: a loop that looks without a pause would hold it, and never come to its bound.

use std::time::Duration;

/// Longer than anything that takes a moment takes; only a test that fails waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The same for what takes its time: networks that are away, whole files.
pub const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// How long nobody looks, where nobody tells. The clock knows nothing shorter.
const LOOK: Duration = Duration::from_millis(1);

/// Waits for something that comes in a moment.
///
/// # Panics
///
/// When it takes longer than [`PATIENCE`].
pub fn soon<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    within(PATIENCE, what, future)
}

/// Waits for something that takes its time.
///
/// # Panics
///
/// When it takes longer than [`LONG_PATIENCE`].
pub fn eventually<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    within(LONG_PATIENCE, what, future)
}

async fn within<T>(patience: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(patience, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// Waits for something that nobody tells of, by looking again and again.
///
/// # Panics
///
/// When it takes longer than [`PATIENCE`].
pub async fn comes<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    soon(what, looking).await
}

/// Waits until something is so, of which nobody tells.
///
/// # Panics
///
/// When it takes longer than [`PATIENCE`].
pub async fn comes_true(what: &str, mut is: impl AsyncFnMut() -> bool) {
    comes(what, async || is().await.then_some(())).await;
}
