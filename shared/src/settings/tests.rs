//! Who wins, what is refused and in which words.

use std::collections::BTreeSet;

use super::*;
use crate::event::Level;
use crate::quantity::{Bytes, Span};
use crate::task::Class;

fn read(text: &str) -> Result<Settings, BadSettings> {
    Settings::read(Path::new("pool.toml"), text, |_| None, &Flags::new())
}

fn row(settings: &Settings, name: &str) -> Row {
    settings.explain().into_iter().find(|row| row.name == name).unwrap()
}

#[test]
fn an_empty_file_and_none_at_all_give_the_defaults() {
    assert_eq!(read("").unwrap(), Settings::default());
    let dir = tempfile::tempdir().unwrap();
    let none = Settings::load(&dir.path().join("pool.toml"), |_| None, &Flags::new());
    assert_eq!(none.unwrap(), Settings::default());
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let text = "# mine\nheartbeat_interval = \"5s\"\nstuck_after = 60\nlog_keep = 4\n";
    let environment = |name: &str| match name {
        "HEARTBEAT_INTERVAL" => Some("6".to_owned()),
        "BRAINSTEM_STUCK_AFTER" => Some("2m".to_owned()),
        _ => None,
    };
    let flags = Flags::from([("heartbeat_interval", "7s".to_owned())]);
    let settings = Settings::read(Path::new("pool.toml"), text, environment, &flags).unwrap();
    assert_eq!(settings.heartbeat_interval, Span::seconds(7));
    assert_eq!(settings.stuck_after, Span::seconds(120));
    assert_eq!(settings.log_keep, 4);
    let origin = |name| row(&settings, name).origin.to_string();
    assert_eq!(origin("heartbeat_interval"), "flag");
    assert_eq!(origin("stuck_after"), "env BRAINSTEM_STUCK_AFTER");
    assert_eq!(origin("log_keep"), "pool.toml:4");
    assert_eq!(origin("idle_poll"), "default");
}

#[test]
fn the_projects_own_variable_beats_the_known_one_and_an_empty_one_counts_for_nothing() {
    let environment = |name: &str| match name {
        "BRAINSTEM_LOG_LEVEL" => Some("debug".to_owned()),
        "DB_LOG_LEVEL" => Some("ERROR".to_owned()),
        "BRAINSTEM_MAX_WORKERS" => Some(String::new()),
        "MAX_ACTIVE_GPUS" => Some("4".to_owned()),
        _ => None,
    };
    let settings = Settings::read(Path::new("pool.toml"), "", environment, &Flags::new()).unwrap();
    assert_eq!(settings.log_level, Level::Debug);
    assert_eq!(settings.max_workers, Some(4));
    assert_eq!(row(&settings, "max_workers").origin.to_string(), "env MAX_ACTIVE_GPUS");
}

#[test]
fn tables_are_read() {
    let text = "group_pool = true\ndisk_low = \"1GiB\"\n[stall_timeout]\nscript = \"600s\"\n\
                cpu = 900\n[limits]\n\"user=ann\" = 2\n";
    let settings = read(text).unwrap();
    assert_eq!(settings.stall_timeout.0[&Class::Script], Span::seconds(600));
    assert_eq!(settings.limits.0["user=ann"], 2);
    assert_eq!(settings.group_pool, GroupPool::Shared);
    assert_eq!(settings.disk_low, Bytes(1 << 30));
    assert_eq!(row(&settings, "stall_timeout").value, "cpu=15m,script=10m");
    assert_eq!(row(&settings, "limits").origin.to_string(), "pool.toml:6");
}

#[test]
fn what_is_wrong_is_said_with_file_and_line() {
    for (text, error) in [
        (
            "log_keep = 3\nhartbeat_interval = 5\n",
            "pool.toml:2: there is no setting `hartbeat_interval`; did you mean `heartbeat_interval`?",
        ),
        ("\n[zzz]\nx = 1\n", "pool.toml:2: there is no setting `zzz`"),
        ("log_keep = -1", "pool.toml:1: log_keep: `-1` is not a whole number"),
        (
            "stuck_after = \"soon\"",
            "pool.toml:1: stuck_after: `soon` is not a duration; write it as `90s` or `15m`",
        ),
        ("limits = 3", "pool.toml:1: limits: expected a table"),
        (
            "[limits]\nann = 3",
            "pool.toml:1: limits: `ann` is not a limit's key; write it as `user=ann`",
        ),
        (
            "[stall_timeout]\nscirpt = \"3s\"",
            "pool.toml:1: stall_timeout: there is no class `scirpt`; did you mean `script`?",
        ),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), error);
    }
    let broken = read("log_keep = 3\nlog_keep = = 3\n").unwrap_err().to_string();
    assert!(broken.starts_with("pool.toml:2: "), "{broken}");
}

#[test]
fn a_flag_or_variable_that_is_wrong_is_named() {
    let flags = Flags::from([("max_attempts", "many".to_owned())]);
    let error = Settings::read(Path::new("pool.toml"), "", |_| None, &flags).unwrap_err();
    assert_eq!(error.to_string(), "flag: max_attempts: `many` is not a whole number");
    let environment = |name: &str| (name == "DB_LOG_LEVEL").then(|| "loud".to_owned());
    let error = Settings::read(Path::new("pool.toml"), "", environment, &Flags::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "env DB_LOG_LEVEL: log_level: `loud` is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let error = Settings::load(dir.path(), |_| None, &Flags::new()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("could not read {}: ", dir.path().display())), "{error}");
}

#[test]
fn no_variable_sets_two_settings_and_each_setting_is_explained() {
    let variables: Vec<_> = Settings::VARIABLES.iter().copied().flatten().collect();
    let unique: BTreeSet<_> = variables.iter().collect();
    assert_eq!(unique.len(), variables.len());
    for (name, variables) in Settings::NAMES.iter().zip(Settings::VARIABLES) {
        assert_eq!(variables[0], format!("BRAINSTEM_{}", name.to_uppercase()));
    }
    assert_eq!(Settings::default().explain().len(), Settings::NAMES.len());
}

#[test]
fn values_read_back_as_they_are_shown() {
    let flags: Vec<_> = Settings::default().explain();
    let flags: Flags<'_> = flags
        .iter()
        .filter(|row| !matches!(row.value.as_str(), "none" | "not set"))
        .map(|row| (row.name, row.value.clone()))
        .collect();
    let settings = Settings::read(Path::new("pool.toml"), "", |_| None, &flags).unwrap();
    assert_eq!(row(&settings, "log_rotate_size").value, "100 MB");
    for (shown, default) in settings.explain().iter().zip(Settings::default().explain()) {
        assert_eq!(shown.value, default.value);
    }
    assert_eq!(settings.log_rotate_size, Settings::default().log_rotate_size);
}

#[test]
fn the_lines_that_are_shown_are_a_pool_toml_that_says_the_same() {
    let text = "min_workers = 2\nlog_rotate_size = 1234567\nscale_up_multiplier = 1.5\n\
                group_pool = true\nlimits = { \"user=ann\" = 2 }\nstall_timeout = { cpu = \"15m\" }";
    for settings in [Settings::default(), read(text).unwrap()] {
        let lines: Vec<_> = settings.explain().into_iter().map(|row| row.line).collect();
        let again = read(&lines.join("\n")).unwrap();
        for (shown, first) in again.explain().iter().zip(settings.explain()) {
            assert_eq!(shown.line, first.line);
        }
        assert_eq!(again.limits, settings.limits);
        assert_eq!(again.min_workers, settings.min_workers);
    }
}

#[test]
fn the_port_beside_a_gpu_is_the_base_and_its_number() {
    let base = |text: &str| read(&format!("ollama_base_port = {text}")).map(|s| s.ollama_base_port);
    assert_eq!(Settings::default().ollama_base_port.of(Some(1)), Some(11437));
    assert_eq!(base("9000").unwrap().of(Some(3)), Some(9003));
    assert_eq!(base("9000").unwrap().of(None), Some(9000));
    for off in ["\"off\"", "0"] {
        assert_eq!(base(off).unwrap().of(Some(1)), None);
    }
    assert_eq!(base("65535").unwrap().of(Some(1)), None);
    for bad in ["70000", "-1", "\"on\""] {
        assert!(base(bad).unwrap_err().to_string().contains("is not a port, or `off`"));
    }
}

#[test]
fn a_key_written_where_its_variable_or_file_should_be_is_not_shown() {
    for key in ["sk-abc", "hf_abc", "Bearer X"] {
        for (setting, wanted) in
            [("api_key_variable", "name of a variable"), ("api_key_file", "whole path")]
        {
            let error = read(&format!("{setting} = \"{key}\"")).unwrap_err().to_string();
            assert!(!error.contains(key) && error.contains(wanted), "{error}");
        }
    }
    assert_eq!(read("api_key_variable = \"MY_KEY2\"").unwrap().api_key_variable, "MY_KEY2");
    assert_eq!(read("api_key_file = \"/k\"").unwrap().api_key_file, Some("/k".into()));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,80}", name in "[a-z_]{0,12}", value in ".{0,20}") {
        let _ = read(&text);
        let _ = read(&format!("log_keep = 1\n{name} = {value}"));
        for setting in Settings::NAMES {
            let _ = read(&format!("{setting} = {value}"));
            let flags = Flags::from([(*setting, value.clone())]);
            let _ = Settings::read(Path::new("pool.toml"), "", |_| None, &flags);
        }
    }
}
