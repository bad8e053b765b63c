//! One Lua file of the owner: its name, its text, and the line that a Lua message names.
//!
//! Pure; does not know VMs.

use std::path::Path;

/// One file, read once for all VMs.
#[derive(Clone)]
pub(super) struct Source {
    /// The file's path as it was given.
    pub(super) file: String,
    /// The file's text.
    pub(super) text: String,
}

impl Source {
    /// The name that Lua's own messages use for it. Lua shortens long paths, but not a file name.
    pub(super) fn chunk_name(&self) -> String {
        format!("@{}", self.short_name())
    }

    pub(super) fn short_name(&self) -> &str {
        Path::new(&self.file).file_name().and_then(|name| name.to_str()).unwrap_or(&self.file)
    }

    /// The first line of this file that a message or its traceback names.
    pub(super) fn line_in(&self, message: &str) -> Option<u32> {
        let marker = format!("{}:", self.short_name());
        message.match_indices(&marker).find_map(|(start, _)| {
            let rest = message.get(start + marker.len()..)?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
    }
}
