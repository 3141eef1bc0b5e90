//! Reading GPUs through NVIDIA's library, of which the fake one stands in for the real one.

use std::fs;
use std::io::{BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tests::FakeGpu;

const MIB: u64 = 1 << 20;

/// A program that has the GPUs open while the test changes them.
struct Probe {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    machine: tempfile::TempDir,
}

impl Probe {
    fn new(gpus: &[FakeGpu]) -> Self {
        let machine = tempfile::tempdir().unwrap();
        set(&machine, gpus);
        let mut child = probe()
            .env("BRAINSTEM_NVML", tests::fake_nvml())
            .env("FAKE_NVML", state(&machine))
            .spawn()
            .unwrap();
        let questions = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        assert_eq!(answer(&mut answers), json!("open"));
        Self { child, questions, answers, machine }
    }

    fn set(&self, gpus: &[FakeGpu]) {
        set(&self.machine, gpus);
    }

    fn ask(&mut self, question: &str) -> Value {
        writeln!(self.questions, "{question}").unwrap();
        answer(&mut self.answers)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill(); // a failed test ends it here, too
        let _ = self.child.wait();
    }
}

fn probe() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-probe"));
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn answer(answers: &mut impl std::io::BufRead) -> Value {
    let mut line = String::new();
    answers.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn state(machine: &tempfile::TempDir) -> PathBuf {
    machine.path().join("gpus")
}

fn set(machine: &tempfile::TempDir, gpus: &[FakeGpu]) {
    let text: String = gpus.iter().map(ToString::to_string).collect();
    let new = tempfile::NamedTempFile::new_in(machine.path()).unwrap();
    fs::write(new.path(), text).unwrap();
    new.persist(state(machine)).unwrap();
}

fn refused(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    answer(&mut &output.stdout[..])
}

#[test]
fn every_gpu_is_read_with_its_processes() {
    let mut busy = FakeGpu::new("GPU-b");
    busy.used_mib = "3000".into();
    busy.utilization = "97".into();
    busy.throttle = "25".into(); // idle, power cap, thermal
    busy.processes = vec![(4711, 2000), (4712, 900)];
    let mut probe = Probe::new(&[FakeGpu::new("GPU-a"), busy]);
    let all = probe.ask("list");
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    let expected = json!({
        "index": 1, "uuid": "GPU-b", "name": "Fake RTX",
        "memory_total": 12288 * MIB, "memory_used": 3000 * MIB, "memory_reserved": 0,
        "utilization": 97, "temperature": 40, "power_watts": 30.0,
        "throttle": ["power_cap", "thermal"],
        "processes": [{"pid": 4711, "memory": 2000 * MIB}, {"pid": 4712, "memory": 900 * MIB}],
    });
    assert_eq!(all[1], expected);
    assert_eq!(probe.ask("index 1"), expected);
    assert_eq!(probe.ask("uuid GPU-b"), expected);
    assert_eq!(probe.ask("name 0"), json!("GPU-a"));
    assert_eq!(all[0]["processes"], json!([]), "an idle GPU is known to have none");
}

#[test]
fn what_a_gpu_does_not_say_is_unknown_and_not_zero() {
    let mut gpu = FakeGpu::new("GPU-a");
    gpu.used_mib = "!".into();
    gpu.utilization = "-".into();
    gpu.temperature = "!".into();
    gpu.milliwatts = "-".into();
    let mut probe = Probe::new(&[gpu]);
    let read = probe.ask("index 0");
    for unknown in ["memory_used", "utilization", "temperature", "power_watts"] {
        assert_eq!(read[unknown], Value::Null, "{unknown} in {read}");
    }
    assert_eq!(read["throttle"], json!([]), "its neighbours are read all the same");
}

#[test]
fn a_gpu_that_falls_off_the_bus_stays_listed_and_comes_back() {
    let (a, b) = (FakeGpu::new("GPU-a"), FakeGpu::new("GPU-b"));
    let mut probe = Probe::new(&[a.clone(), b.clone()]);
    probe.set(std::slice::from_ref(&a));
    let lost = probe.ask("list")[1].clone();
    assert_eq!((&lost["index"], &lost["uuid"]), (&json!(1), &json!("GPU-b")));
    assert_eq!((&lost["memory_total"], &lost["processes"]), (&Value::Null, &Value::Null));
    assert_eq!(probe.ask("index 1"), lost);
    assert_eq!(probe.ask("uuid GPU-b"), lost);
    assert_eq!(probe.ask("name 1"), json!("GPU-b"));
    assert_eq!(probe.ask("memory GPU-b 1"), Value::Null);
    probe.set(&[a, b]);
    assert_eq!(probe.ask("uuid GPU-b")["memory_total"], json!(12288 * MIB));
}

#[test]
fn a_gpu_that_never_was_is_nothing() {
    let mut probe = Probe::new(&[FakeGpu::new("GPU-a")]);
    assert_eq!(probe.ask("index 99"), Value::Null);
    assert_eq!(probe.ask("uuid GPU-z"), Value::Null);
    assert_eq!(probe.ask("name 99"), Value::Null);
}

#[test]
fn memory_of_a_job_is_counted_on_its_gpu() {
    let me = std::process::id();
    let mut gpu = FakeGpu::new("GPU-a");
    gpu.processes = vec![(me, 700), (1, 5000)];
    let mut probe = Probe::new(&[gpu, FakeGpu::new("GPU-b")]);
    assert_eq!(probe.ask(&format!("memory GPU-a {me}")), json!(700 * MIB));
    assert_eq!(probe.ask(&format!("memory GPU-b {me}")), json!(0));
}

#[test]
fn a_library_without_a_driver_says_so() {
    let told = refused(probe().env("BRAINSTEM_NVML", tests::fake_nvml()));
    assert_eq!(told["kind"], json!("no driver"), "{told}");
}

#[test]
fn a_machine_without_the_library_says_so() {
    let told = refused(probe().env("BRAINSTEM_NVML", "/nowhere/libnvidia-ml.so.1"));
    let text = "no NVIDIA library on this machine (/nowhere/libnvidia-ml.so.1)";
    assert_eq!(told, json!({"kind": "no library", "error": text}));
}

/// On the machine as it is: with NVIDIA's driver its GPUs, otherwise the reason; never a panic.
#[test]
fn this_machine_is_told_as_it_is() {
    let mut child = probe().stdin(Stdio::null()).spawn().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    let told = answer(&mut answers);
    assert!(child.wait().unwrap().success());
    let driver = fs::metadata("/proc/driver/nvidia/version").is_ok();
    assert_eq!(told == json!("open"), driver, "{told}");
}
