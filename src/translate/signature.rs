//! The signature of a thinking block. Clients do not read it, and send it back unchanged.
//!
//! If the client gets the block's text, the signature is a digest of the text. If the client asked to omit the text,
//! the signature carries it, so that the model gets its own reasoning back on the next turn and sparkgap keeps nothing.
//! For the same reason it carries the number of the newlines between the reasoning and the text behind it, which the
//! client does not get: terminals would show them as empty lines.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::hash::Fnv;

/// The most newlines that are removed from the beginning of a text: one digit. Templates write two.
pub(super) const NEWLINES_MAX: usize = 9;

/// Stands between the digest and the number of newlines, if there are any.
const NEWLINES_MARK: char = 'n';

/// Begins a signature of the form `sg1.` + digest: the block has the text.
const DIGEST_PREFIX: &str = "sg1.";

/// Begins a signature of the form `sg1t.` + digest + `.` + the text in base64.
const TEXT_PREFIX: &str = "sg1t.";

/// The signature of a block that is being written.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    digest: Fnv,
    /// The text, if it is withheld from the client and carried in the signature.
    text: Option<String>,
}

impl Signature {
    pub(super) fn new(withheld: bool) -> Self {
        Signature { digest: Fnv::EMPTY, text: withheld.then(String::new) }
    }

    pub(super) fn push(&mut self, text: &str) {
        self.digest = self.digest.push(text.as_bytes());
        if let Some(carried) = &mut self.text {
            carried.push_str(text);
        }
    }

    /// The bytes of text that it holds.
    pub(super) fn size(&self) -> usize {
        self.text.as_ref().map_or(0, String::len)
    }

    /// The signature of a block behind which a text follows after this number of newlines.
    pub(super) fn encode(&self, newlines: usize) -> String {
        let digest = before_newlines(self.digest, newlines);
        match &self.text {
            None => format!("{DIGEST_PREFIX}{digest}"),
            Some(text) => carrying(&digest, text),
        }
    }
}

/// The digest, with the number of newlines if there are any.
fn before_newlines(digest: Fnv, newlines: usize) -> String {
    match newlines {
        0 => digest.hex(),
        _ => format!("{}{NEWLINES_MARK}{newlines}", digest.hex()),
    }
}

fn carrying(digest: &str, text: &str) -> String {
    format!("{TEXT_PREFIX}{digest}.{}", URL_SAFE_NO_PAD.encode(text))
}

/// True if sparkgap has made this signature.
pub(super) fn is_ours(signature: &str) -> bool {
    signature.starts_with(DIGEST_PREFIX) || signature.starts_with(TEXT_PREFIX)
}

/// The newlines that belong before the text that directly follows a block with this signature.
pub(super) fn newlines_after(signature: &str) -> &'static str {
    let rest = signature.strip_prefix(TEXT_PREFIX).or_else(|| signature.strip_prefix(DIGEST_PREFIX));
    let digest = rest.and_then(|rest| rest.split('.').next());
    let count = digest.and_then(|digest| digest.split_once(NEWLINES_MARK)?.1.parse::<usize>().ok());
    let count = count.filter(|count| *count <= NEWLINES_MAX).unwrap_or(0);
    "\n\n\n\n\n\n\n\n\n".get(..count).unwrap_or_default()
}

/// The signature of a block whose text is withheld from the client. The signature carries `text`.
pub fn signature_carrying(text: &str) -> String {
    carrying(&Fnv::EMPTY.push(text.as_bytes()).hex(), text)
}

/// This signature with `text` in place of the text that it carries. The newlines behind the block are another block's, so
/// they stay.
pub fn signature_with(signature: &str, text: &str) -> String {
    let digest = Fnv::EMPTY.push(text.as_bytes());
    carrying(&before_newlines(digest, newlines_after(signature).len()), text)
}

/// True if another maker, such as Anthropic's API, has made this signature.
pub(super) fn is_foreign(signature: &str) -> bool {
    !signature.is_empty() && !is_ours(signature)
}

/// The reasoning of a thinking block: its text, or the text in its signature if the signature is ours and intact.
pub(super) fn reasoning<'r>(text: &'r str, signature: &str) -> Cow<'r, str> {
    if text.is_empty() {
        Cow::Owned(carried_reasoning(signature).unwrap_or_default())
    } else {
        Cow::Borrowed(text)
    }
}

/// The text that a signature of ours carries in place of its block. `None` if the signature carries only a digest, is
/// damaged, or is not ours.
pub fn carried_reasoning(signature: &str) -> Option<String> {
    let (digest, text) = signature.strip_prefix(TEXT_PREFIX)?.split_once('.')?;
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let digest = digest.split(NEWLINES_MARK).next().unwrap_or_default();
    (Fnv::EMPTY.push(text.as_bytes()).hex() == digest).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(withheld: bool, pieces: &[&str]) -> String {
        let mut signature = Signature::new(withheld);
        pieces.iter().for_each(|piece| signature.push(piece));
        signature.encode(0)
    }

    #[test]
    fn withheld_text_comes_back() {
        let made = signature(true, &["ab", "cé\n"]);
        assert_eq!(reasoning("", &made), "abcé\n");
        assert_eq!(reasoning("shown", &made), "shown");
        assert_eq!(signature_carrying("abcé\n"), made);
        assert_eq!(carried_reasoning(&made).as_deref(), Some("abcé\n"));
    }

    #[test]
    fn the_digest_is_of_the_whole_text() {
        assert_eq!(signature(false, &["ab", "c"]), signature(false, &["abc"]));
        assert_ne!(signature(false, &["abc"]), signature(false, &["abd"]));
        assert_eq!(reasoning("", &signature(false, &["abc"])), "");
    }

    #[test]
    fn newlines_before_the_text_are_carried() {
        for withheld in [false, true] {
            for count in 0..=NEWLINES_MAX {
                let mut signature = Signature::new(withheld);
                signature.push("abc");
                let made = signature.encode(count);
                assert_eq!(newlines_after(&made).len(), count, "{made}");
                assert_eq!(carried_reasoning(&made).as_deref(), withheld.then_some("abc"));
                let changed = signature_with(&made, "d");
                assert_eq!(newlines_after(&changed).len(), count, "{changed}");
                assert_eq!(carried_reasoning(&changed).as_deref(), Some("d"));
            }
        }
        for foreign in ["", "EqQBCgIYAhIMn2", "sg1.0n10", "sg1.0n", "sg1.0n-1", "sg1t.0.n2", "sg1.0.n2"] {
            assert_eq!(newlines_after(foreign), "", "{foreign}");
        }
    }

    #[test]
    fn foreign_and_damaged_signatures_carry_nothing() {
        let made = signature(true, &["abc"]);
        let damaged = made.replace("YW", "ZW");
        assert_ne!(made, damaged);
        for foreign in ["", "EqQBCgIYAhIM", "sg1t.", "sg1t.0.!!", "sg1t.0000000000000000.YWJj", &damaged] {
            assert_eq!(reasoning("", foreign), "", "{foreign}");
        }
    }
}
