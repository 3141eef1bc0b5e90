//! What the GPUs say, from a thread of its own: a driver that hangs must not hang the brain.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use shared::gpu::Gpus;

use crate::message::Message;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// Starts to look. `end` is closed when the brain ends.
pub(crate) fn start(tell: Sender<Message>, end: Receiver<()>) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("gpus".into());
    thread.spawn(move || look(&tell, &end)).map(|_ends_with_the_brain| ())
}

fn look(tell: &Sender<Message>, end: &Receiver<()>) {
    let gpus = match Gpus::open(None) {
        Ok(gpus) => gpus,
        Err(err) => {
            let _ = tell.send(Message::NoGpus(err.to_string()));
            return;
        }
    };
    while tell.send(Message::Gpus(gpus.list())).is_ok() {
        match end.recv_timeout(INTERVAL) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
