//! What the sensors say about the GPUs of this machine, and what they do not say.
//!
//! `reading` has the words (a value that nobody could read is *unknown*, never 0), `fault` what
//! speaks against a GPU, `nvml` asks the driver. Everything a GPU is asked can fail, and every
//! failure stays inside its own field.

mod fault;
mod nvml;
mod reading;

pub use fault::{GpuFault, RecoveryAction};
pub use nvml::{Examined, Gpus, NoGpus, Which, XidEvents};
pub use reading::{GpuProcess, GpuReading, PeakMemory, Reading, Sensors};
