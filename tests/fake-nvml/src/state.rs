//! The text file that stands for the GPUs of the machine, read again at every call.

use std::ffi::OsString;
use std::sync::Mutex;
use std::{env, fs};

/// NVML's word for "this device cannot say".
const NOT_SUPPORTED: i32 = 3;
/// NVML's word for a GPU that has fallen off the bus.
const GPU_IS_LOST: i32 = 15;
/// NVML's word for a GPU that must be reset.
const RESET_REQUIRED: i32 = 16;
/// NVML's word for an error nobody foresaw.
const UNKNOWN: i32 = 999;

/// A number of the file: given, `-` (not supported), `!` (the sensor fails), or `lost` or `reset`
/// (what the driver says instead).
pub(crate) type Field = Result<u64, i32>;

/// One line of the file.
#[derive(Clone)]
pub(crate) struct Gpu {
    pub(crate) uuid: String,
    pub(crate) total_mib: Field,
    pub(crate) used_mib: Field,
    pub(crate) gpu_percent: Field,
    pub(crate) memory_percent: Field,
    pub(crate) temperature: Field,
    pub(crate) milliwatts: Field,
    pub(crate) limit_milliwatts: Field,
    pub(crate) throttle: Field,
    pub(crate) xid: u64,
    /// NVML's number for what the driver wants done with it.
    pub(crate) recovery: Field,
    /// MiB that the driver keeps for itself.
    pub(crate) reserved_mib: u64,
    /// Each with its process id and its MiB.
    pub(crate) processes: Vec<(u32, Field)>,
}

/// Where the state is; nothing: there is no driver.
pub(crate) fn file() -> Option<OsString> {
    env::var_os("FAKE_NVML")
}

/// The GPUs that were there when the library was last started: as the real one, it learns of no
/// others later.
static FOUND: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Looks for GPUs.
pub(crate) fn start() {
    if let Ok(mut found) = FOUND.lock() {
        *found = present().into_iter().map(|gpu| gpu.uuid).collect();
    }
}

/// The GPUs that were found and are there at this moment.
pub(crate) fn load() -> Vec<Gpu> {
    let Ok(found) = FOUND.lock() else { return Vec::new() };
    present().into_iter().filter(|gpu| found.contains(&gpu.uuid)).collect()
}

/// All GPUs there are at this moment; a line that cannot be read ends the list.
fn present() -> Vec<Gpu> {
    let text = file().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    text.lines().map_while(line).collect()
}

/// `uuid total_mib used_mib gpu% mem% temp mW limit_mW throttle_hex pid pid_mib xid [pid:mib …]
/// [recovery=N] [reserved=MIB]`
fn line(text: &str) -> Option<Gpu> {
    let mut words = text.split_whitespace();
    let uuid = words.next()?.to_owned();
    let mut number = || decimal(words.next()?);
    let total_mib = number()?;
    let used_mib = number()?;
    let gpu_percent = number()?;
    let memory_percent = number()?;
    let temperature = number()?;
    let milliwatts = number()?;
    let limit_milliwatts = number()?;
    let throttle = field(words.next()?, 16)?;
    let mut processes = vec![process(words.next()?, words.next()?)?];
    let xid = words.next()?.parse().ok()?;
    let (mut recovery, mut reserved_mib) = (Err(NOT_SUPPORTED), 0);
    for more in words {
        match more.split_once('=') {
            Some(("recovery", number)) => recovery = decimal(number)?,
            Some(("reserved", mib)) => reserved_mib = mib.parse().ok()?,
            Some(_) => return None,
            None => {
                let (pid, mib) = more.split_once(':')?;
                processes.push(process(pid, mib)?);
            }
        }
    }
    processes.retain(|(pid, _)| *pid != 0);
    Some(Gpu {
        uuid,
        total_mib,
        used_mib,
        gpu_percent,
        memory_percent,
        temperature,
        milliwatts,
        limit_milliwatts,
        throttle,
        xid,
        recovery,
        reserved_mib,
        processes,
    })
}

fn process(pid: &str, mib: &str) -> Option<(u32, Field)> {
    Some((pid.parse().ok()?, decimal(mib)?))
}

fn decimal(word: &str) -> Option<Field> {
    field(word, 10)
}

fn field(word: &str, radix: u32) -> Option<Field> {
    match word {
        "-" => Some(Err(NOT_SUPPORTED)),
        "!" => Some(Err(UNKNOWN)),
        "lost" => Some(Err(GPU_IS_LOST)),
        "reset" => Some(Err(RESET_REQUIRED)),
        digits => u64::from_str_radix(digits.trim_start_matches("0x"), radix).ok().map(Ok),
    }
}
