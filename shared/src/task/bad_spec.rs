//! A task that cannot be understood.

/// A task that cannot be understood, with where and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", self.place())]
pub struct BadSpec {
    /// The line inside the text, from 1, where known.
    pub line: Option<usize>,
    /// The field, where known.
    pub field: Option<String>,
    /// What is wrong with it.
    pub problem: String,
}

impl BadSpec {
    pub(super) fn field(field: &str, problem: impl Into<String>) -> Self {
        Self { line: None, field: Some(field.to_owned()), problem: problem.into() }
    }

    fn place(&self) -> String {
        let line = self.line.map(|line| format!("line {line}: "));
        let field = self.field.as_ref().map(|field| format!("field `{field}`: "));
        line.unwrap_or_default() + &field.unwrap_or_default()
    }
}
