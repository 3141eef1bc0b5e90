//! What the GPUs say, from a thread of its own: a driver that hangs must not hang the brain. While
//! one of them cannot be read the library is opened anew for each look: only so one that has come
//! back is seen, and one that is to be reset is let go of.

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
    let mut gpus = match Gpus::open(None) {
        Ok(gpus) => gpus,
        Err(err) => {
            let _ = tell.send(Message::NoGpus(err.to_string()));
            return;
        }
    };
    loop {
        let readings = gpus.list();
        let is_one_lost = readings.iter().any(|gpu| gpu.sensors().is_none());
        if tell.send(Message::Gpus(readings)).is_err() {
            return;
        }
        match end.recv_timeout(INTERVAL) {
            Err(RecvTimeoutError::Timeout) if is_one_lost => {
                // Where that fails, the next look fails, too.
                let _closed = gpus.reopen();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
