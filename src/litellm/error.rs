//! The failure of an import.

use std::fmt;

/// Where a node begins; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    /// The number of the file: 0 for the main one, otherwise that of an included file in the order of reading.
    pub(super) file: usize,
}

/// The reason why a file cannot be translated: it is not YAML, or not a LiteLLM configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportError {
    /// The included file that has the mistake; `None`: the file itself.
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
        let (line, column) = (Some(place.line), Some(place.column));
        // The number stands for the name, which only the reader of all files knows.
        let file = (place.file > 0).then(|| place.file.to_string());
        ImportError { file, line, column, message: message.into() }
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ImportError {}
