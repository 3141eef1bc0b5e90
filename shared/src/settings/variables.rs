//! Variables that look like ours and that nothing reads: mostly ones that were mistyped.

use super::Settings;
use crate::event::UnknownVariable;
use crate::name::nearest;

/// What the programs read, or give to each other and to jobs, beside the settings.
const OTHERS: &[&str] = &[
    "BRAINSTEM_POOL",
    "BRAINSTEM_NVML",
    "BRAINSTEM_STARTED_BY",
    "BRAINSTEM_TASK_ID",
    "BRAINSTEM_ATTEMPT",
    "BRAINSTEM_WORKER",
    "BRAINSTEM_PROGRESS_FILE",
    "BRAINSTEM_CORRELATION_ID",
];

impl Settings {
    /// Those of `names` that begin as ours do and are none of ours.
    #[must_use]
    pub fn unknown_variables(&self, names: impl Iterator<Item = String>) -> Vec<UnknownVariable> {
        let settings = Self::VARIABLES.iter().copied().flatten().copied();
        let known: Vec<&'static str> = settings.chain(OTHERS.iter().copied()).collect();
        let ours = names.filter(|name| name.starts_with("BRAINSTEM_"));
        let unknown =
            ours.filter(|name| !known.contains(&name.as_str()) && *name != self.api_key_variable);
        let told = |name: String| {
            let nearest = nearest(&name, &known);
            UnknownVariable { name, nearest }
        };
        let mut told: Vec<_> = unknown.map(told).collect();
        told.sort_by(|a, b| a.name.cmp(&b.name));
        told
    }

    /// The same of this process's environment.
    #[must_use]
    pub fn unknown_variables_here(&self) -> Vec<UnknownVariable> {
        self.unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_of_ours_that_nothing_reads_are_told_with_the_one_that_is_near() {
        let mut settings = Settings::default();
        settings.api_key_variable = "BRAINSTEM_OUR_KEY".into();
        let told = |name: &str| {
            let told = settings.unknown_variables([name.to_owned()].into_iter()).pop();
            told.map(|unknown| unknown.to_string())
        };
        for known in Settings::VARIABLES.iter().copied().flatten().chain(OTHERS) {
            assert_eq!(told(known), None);
        }
        assert_eq!((told("BRAINSTEM_OUR_KEY"), told("PATH")), (None, None));
        assert_eq!(
            told("BRAINSTEM_IDLE_POL").unwrap(),
            "BRAINSTEM_IDLE_POL is set and ignored: there is no such setting; did you mean \
             `BRAINSTEM_IDLE_POLL`?"
        );
        let far = told("BRAINSTEM_QQQQQQQQQQQQQQQQQQQQQQQ").unwrap();
        assert!(far.ends_with("there is no such setting"), "{far}");
    }
}
