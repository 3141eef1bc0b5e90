//! A stand-in for `libnvidia-ml.so.1`: as much of NVML as `nvml-wrapper` calls for Brainstem.
//!
//! Its GPUs are the lines of the text file named in `$FAKE_NVML` (`state.rs` has the format), read
//! again at every call, so that a test changes the machine by replacing a file. No variable: no
//! driver. A GPU whose line is gone is lost; one that comes is seen when the library is started
//! anew. Names, types and numbers are those of `nvml.h`.
#![expect(unsafe_code, reason = "this is the C side of NVML: its pointers come from the caller")]

mod state;

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use state::{Field, Gpu};

const SUCCESS: c_int = 0;
const INVALID_ARGUMENT: c_int = 2;
const NOT_SUPPORTED: c_int = 3;
const NOT_FOUND: c_int = 6;
const INSUFFICIENT_SIZE: c_int = 7;
const DRIVER_NOT_LOADED: c_int = 9;
const TIMEOUT: c_int = 10;
const GPU_IS_LOST: c_int = 15;
/// `nvmlEventTypeXidCriticalError`
const XID_ERROR: u64 = 8;

/// A handle is the index plus one: never null.
type Device = usize;

/// What a call does with the GPU it is about; the error is NVML's code.
fn with(device: Device, act: impl FnOnce(&Gpu) -> Result<(), c_int>) -> c_int {
    let gpus = state::load();
    let Some(gpu) = device.checked_sub(1).and_then(|index| gpus.get(index)) else {
        return GPU_IS_LOST;
    };
    act(gpu).err().unwrap_or(SUCCESS)
}

/// Writes through a pointer that the caller gave.
fn put<T>(to: *mut T, value: T) {
    // SAFETY: NVML's contract: every out pointer is valid for its type.
    unsafe { to.write(value) }
}

fn put_number(to: *mut c_uint, field: Field) -> Result<(), c_int> {
    put(to, u32::try_from(field?).unwrap_or(u32::MAX));
    Ok(())
}

fn put_text(to: *mut c_char, room: c_uint, text: &str) -> c_int {
    let Some(last) = (room as usize).checked_sub(1) else { return INSUFFICIENT_SIZE };
    let bytes = text.bytes().take(last).chain([0]);
    for (at, byte) in bytes.enumerate() {
        // SAFETY: `at` is below the length that came with the pointer.
        unsafe { to.add(at).write(byte.cast_signed()) }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> c_int {
    if state::file().is_none() {
        return DRIVER_NOT_LOADED;
    }
    state::start();
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> c_int {
    nvmlInit_v2()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(_code: c_int) -> *const c_char {
    c"fake".as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetDriverVersion(to: *mut c_char, room: c_uint) -> c_int {
    put_text(to, room, "580.95.05")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetNVMLVersion(to: *mut c_char, room: c_uint) -> c_int {
    put_text(to, room, "13.580.95.05")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetCudaDriverVersion_v2(to: *mut c_int) -> c_int {
    put(to, 13_000);
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCount_v2(to: *mut c_uint) -> c_int {
    put(to, u32::try_from(state::load().len()).unwrap_or(u32::MAX));
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, to: *mut Device) -> c_int {
    if index as usize >= state::load().len() {
        return INVALID_ARGUMENT;
    }
    put(to, index as usize + 1);
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, to: *mut Device) -> c_int {
    // SAFETY: NVML's contract: a C string.
    let uuid = unsafe { std::ffi::CStr::from_ptr(uuid) }.to_bytes();
    let Some(index) = state::load().iter().position(|gpu| gpu.uuid.as_bytes() == uuid) else {
        return NOT_FOUND;
    };
    put(to, index + 1);
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetIndex(device: Device, to: *mut c_uint) -> c_int {
    put(to, u32::try_from(device.saturating_sub(1)).unwrap_or(u32::MAX));
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetName(device: Device, to: *mut c_char, room: c_uint) -> c_int {
    with(device, |_gpu| code(put_text(to, room, "Fake RTX")))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetUUID(device: Device, to: *mut c_char, room: c_uint) -> c_int {
    with(device, |gpu| code(put_text(to, room, &gpu.uuid)))
}

fn code(code: c_int) -> Result<(), c_int> {
    if code == SUCCESS { Ok(()) } else { Err(code) }
}

/// `nvmlMemory_v2_t`
#[repr(C)]
struct Memory {
    version: c_uint,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Device, to: *mut Memory) -> c_int {
    with(device, |gpu| {
        let (total, used) = (gpu.total_mib? << 20, gpu.used_mib? << 20);
        let reserved = gpu.reserved_mib << 20;
        let free = total.saturating_sub(used + reserved);
        put(to, Memory { version: 0x0200_0028, total, reserved, free, used });
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetUtilizationRates(device: Device, to: *mut [c_uint; 2]) -> c_int {
    with(device, |gpu| {
        let percent = |field: Field| field.map(|value| u32::try_from(value).unwrap_or(100));
        put(to, [percent(gpu.gpu_percent)?, percent(gpu.memory_percent)?]);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTemperature(device: Device, _sensor: c_int, to: *mut c_uint) -> c_int {
    with(device, |gpu| put_number(to, gpu.temperature))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetPowerUsage(device: Device, to: *mut c_uint) -> c_int {
    with(device, |gpu| put_number(to, gpu.milliwatts))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetEnforcedPowerLimit(device: Device, to: *mut c_uint) -> c_int {
    with(device, |gpu| put_number(to, gpu.limit_milliwatts))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(device: Device, to: *mut u64) -> c_int {
    with(device, |gpu| {
        put(to, gpu.throttle?);
        Ok(())
    })
}

/// `nvmlFieldValue_t`; of its union the number that is asked for here.
#[repr(C)]
struct FieldValue {
    field_id: c_uint,
    scope_id: c_uint,
    timestamp: i64,
    latency: i64,
    value_type: c_uint,
    outcome: c_int,
    value: u64,
}

/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`
const RECOVERY_ACTION: c_uint = 230;
/// `NVML_VALUE_TYPE_UNSIGNED_INT`
const UNSIGNED_INT: c_uint = 1;

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetFieldValues(
    device: Device,
    count: c_int,
    values: *mut FieldValue,
) -> c_int {
    with(device, |gpu| {
        for at in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: NVML's contract: there are so many.
            let field = unsafe { &mut *values.add(at) };
            let answer =
                if field.field_id == RECOVERY_ACTION { gpu.recovery } else { Err(NOT_SUPPORTED) };
            field.value_type = UNSIGNED_INT;
            field.outcome = answer.err().unwrap_or(SUCCESS);
            field.value = answer.unwrap_or(0);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMigMode(
    _device: Device,
    _current: *mut c_uint,
    _pending: *mut c_uint,
) -> c_int {
    NOT_SUPPORTED
}

/// `nvmlProcessInfo_t`
#[repr(C)]
struct Process {
    pid: c_uint,
    memory: u64,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Device,
    count: *mut c_uint,
    to: *mut Process,
) -> c_int {
    with(device, |gpu| {
        // SAFETY: NVML's contract: it says how many fit.
        let room = unsafe { count.read() };
        let have = u32::try_from(gpu.processes.len()).unwrap_or(u32::MAX);
        put(count, have);
        if room < have {
            return Err(INSUFFICIENT_SIZE);
        }
        for (at, (pid, mib)) in gpu.processes.iter().enumerate() {
            // NVML's own "not available" is the largest number.
            let memory = mib.map_or(u64::MAX, |mib| mib << 20);
            let (gpu_instance, compute_instance) = (u32::MAX, u32::MAX);
            // SAFETY: `at` is below `room`.
            let place = unsafe { to.add(at) };
            put(place, Process { pid: *pid, memory, gpu_instance, compute_instance });
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetCreate(to: *mut usize) -> c_int {
    put(to, 1);
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetFree(_set: usize) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(_device: Device, _types: u64, _set: usize) -> c_int {
    SUCCESS
}

/// `nvmlEventData_t`
#[repr(C)]
struct EventData {
    device: Device,
    kind: u64,
    data: u64,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// The last XID told for each GPU.
static TOLD: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// The first GPU whose XID in the file is not the one told before.
fn news() -> Option<EventData> {
    let mut told = TOLD.lock().ok()?;
    for (index, gpu) in state::load().iter().enumerate() {
        if told.len() <= index {
            told.resize(index + 1, 0);
        }
        if std::mem::replace(&mut told[index], gpu.xid) != gpu.xid && gpu.xid != 0 {
            let (gpu_instance, compute_instance) = (u32::MAX, u32::MAX);
            let (device, kind, data) = (index + 1, XID_ERROR, gpu.xid);
            return Some(EventData { device, kind, data, gpu_instance, compute_instance });
        }
    }
    None
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetWait_v2(_set: *mut c_void, to: *mut EventData, millis: c_uint) -> c_int {
    let deadline = Instant::now() + Duration::from_millis(u64::from(millis));
    loop {
        if let Some(event) = news() {
            put(to, event);
            return SUCCESS;
        }
        if Instant::now() >= deadline {
            return TIMEOUT;
        }
        // A driver would block here on an interrupt; a text file gives none.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
