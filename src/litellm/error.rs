//! The failure of an import.

use std::fmt;
use std::rc::Rc;

/// Where a node begins; both count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    /// The path of an included file; `None`: the main one.
    pub(super) file: Option<Rc<str>>,
}

/// The reason why a file cannot be translated: it is not YAML, or not a LiteLLM configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportError {
    /// The path of the included file that has the mistake; `None`: the file itself.
    pub file: Option<String>,
    /// The line, from 1, if it is known.
    pub line: Option<usize>,
    /// The column, from 1.
    pub column: Option<usize>,
    /// The mistake, and the way to correct it.
    pub message: String,
}

impl ImportError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        ImportError { file: None, line: None, column: None, message: message.into() }
    }

    pub(super) fn at(place: Place, message: impl Into<String>) -> Self {
        let Place { line, column, file } = place;
        let file = file.as_deref().map(str::to_owned);
        ImportError { file, line: Some(line), column: Some(column), message: message.into() }
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ImportError {}
