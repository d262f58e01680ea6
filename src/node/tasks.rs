//! The tasks of a node: all of them run where it was started, whoever has them started.

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Tasks that are waited for together. They run on the runtime of the node: that of who asks for
/// something may be gone soon, or be driven by nobody, or there may be none. Clones are handles to the
/// same tasks.
#[derive(Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    runtime: Handle,
}

impl Tasks {
    /// None yet.
    pub(super) fn on(runtime: Handle) -> Self {
        Self {
            tracker: TaskTracker::new(),
            runtime,
        }
    }

    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// Waits until all have ended. Others may be started until then.
    pub(super) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
