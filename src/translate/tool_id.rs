//! Ids of tool calls: the API allows fewer characters than some models use (Kimi: `functions.read:0`).
//!
//! Such an id goes to the client in base64 and comes back as it was, since the model's template may show it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Stands before an encoded id.
const PREFIX: &str = "toolu_sg1_";

/// The id for the client.
pub(super) fn shown(id: &str) -> Cow<'_, str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if id.bytes().all(allowed) && !id.starts_with(PREFIX) {
        return Cow::Borrowed(id);
    }
    Cow::Owned(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(id)))
}

/// The id that the upstream gave, of one that a client sends back.
pub(super) fn given(shown: &str) -> Cow<'_, str> {
    let decoded = shown.strip_prefix(PREFIX).and_then(|code| URL_SAFE_NO_PAD.decode(code).ok());
    match decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(id) if !id.is_empty() => Cow::Owned(id),
        _ => Cow::Borrowed(shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_as_they_were() {
        for id in ["functions.read:0", "a b", "é", "functions.read:00", "toolu_sg1_"] {
            let shown = shown(id);
            assert!(shown.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)), "{shown}");
            assert_eq!(given(&shown), id);
        }
    }

    #[test]
    fn what_the_api_allows_stays_as_it_is() {
        for id in ["toolu_01AbC-x", "call_1", "", "toolu_sg1_", "toolu_sg1_?", "toolu_sg1_a"] {
            assert_eq!(given(id), id);
        }
        assert_eq!(shown("call_1-A"), "call_1-A");
    }
}
