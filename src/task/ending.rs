//! How the task ends: nothing that is under way is lost, and nothing that comes meanwhile.

use outlive_core::ChannelId;
use outlive_core::engine::{Engine, Event, Output};
use outlive_core::wire::frame::CloseReason;

use super::{Task, holds_mail, pending_or};

impl Task {
    /// Tells the peer that the session ends, writes what is under way, and closes it.
    pub(super) async fn leave(&mut self, engine: &mut Engine, reason: CloseReason) {
        engine.close(reason, self.inner.clock.now());
        while let Some(output) = engine.poll() {
            self.carry_out(engine, output);
        }
        self.finish(engine).await;
        self.close(holds_mail(engine));
    }

    /// Nobody comes in any more, and no callback is entered.
    pub(super) fn close(&mut self, holds: impl Fn(ChannelId) -> bool) {
        self.inner.end(&self.hub, &mut self.inputs, holds);
        self.hub.registry.end();
    }

    /// Writes what is under way before the task ends, and says what follows from it: the peer would
    /// wait for it until this node is there again.
    pub(super) async fn finish(&mut self, engine: &mut Engine) {
        for _ in 0..2 {
            if self.write.is_some() && pending_or(&mut self.write).await.is_ok() {
                self.written(engine);
            }
            engine.hasten(self.inner.clock.now());
            while let Some(output) = engine.poll() {
                match output {
                    Output::Write(_)
                    | Output::Transmit(_)
                    | Output::Release { .. }
                    | Output::Park { .. } => self.carry_out(engine, output),
                    // Its sender hears that it is here: so does the app, or who serves it.
                    Output::Event(Event::Inbox { channel, .. }) if channel.is_for_apps() => {
                        self.carry_out(engine, output);
                    }
                    Output::Event(Event::Inbox { .. }) => self.left = true,
                    _ => {}
                }
            }
        }
        if self.write.is_some() && pending_or(&mut self.write).await.is_ok() {
            self.flight.answer(&Ok(()));
        }
    }

    /// Has the session loaded again, by another task, if mail came while this one ended: its relay takes it to
    /// be on its way, and would not bring it again before the next connection.
    pub(super) async fn leave_no_mail(&mut self) {
        if self.cancel.is_cancelled() {
            return;
        }
        self.inputs.close();
        // Who has just found room puts something there.
        tokio::task::yield_now().await;
        while let Ok(input) = self.inputs.try_recv() {
            self.left |= input.is_mail();
        }
        if self.left {
            // Of a peer that is blocked nothing is taken.
            let _ = self.inner.inputs(self.peer);
        }
    }
}
