//! The headers of a message, in one allocation: Claude Code sends 21 to 26 of them.

use std::fmt;

/// The headers that carry keys. Hooks cannot read them.
pub const SECRET_HEADERS: [&str; 5] =
    ["x-api-key", "x-sparkgap-key", "authorization", "proxy-authorization", "cookie"];

/// Headers in their order. Names are kept in lower case.
#[derive(Clone, Default)]
pub struct Headers {
    /// Each name, followed by its value.
    text: Vec<u8>,
    /// For each header the indexes where the name begins, where the value begins, and where the value ends.
    fields: Vec<[usize; 3]>,
}

/// True if a `content-encoding` changes the body. Some servers and clients say `none`, which is not a registered name.
pub(crate) fn is_encoded(encoding: &str) -> bool {
    let encoding = encoding.trim();
    !["", "identity", "none"].iter().any(|plain| encoding.eq_ignore_ascii_case(plain))
}

impl Headers {
    /// The first value of this header, whose name may be in any case. `None` also if the value is not visible ASCII.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values(name).next().and_then(visible)
    }

    /// All values of this header, as sent.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.raw()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Names and values in the order in which they came, except for values that are not visible ASCII.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.raw().filter_map(|(name, value)| Some((visible(name)?, visible(value)?)))
    }

    /// True if one of these headers, read as a list of words between commas, has this word. Case does not matter.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        let mut words = self.values(name).flat_map(|value| value.split(|byte| *byte == b','));
        words.any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The length that all `content-length` headers agree on, in bytes.
    ///
    /// # Errors
    /// They do not agree, or one is not a number (RFC 9112, section 6.3).
    pub(crate) fn content_length(&self) -> Result<Option<u64>, &'static str> {
        let mut agreed = None;
        for value in self.values("content-length").flat_map(|value| value.split(|byte| *byte == b',')) {
            let digits = value.trim_ascii();
            let length = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
            let Some(length) = length.and_then(|digits| digits.parse::<u64>().ok()) else {
                return Err("content-length header not a number");
            };
            if agreed.is_some_and(|agreed| agreed != length) {
                return Err("conflicting content-length headers");
            }
            agreed = Some(length);
        }
        Ok(agreed)
    }

    /// True if the connection outlives the message that has these headers (RFC 9112, section 9.3).
    pub(crate) fn keep_alive(&self, http10: bool) -> bool {
        let close = self.lists("connection", "close");
        !close && (!http10 || self.lists("connection", "keep-alive"))
    }

    /// The number of headers.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// True if there are no headers.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The headers that httparse has found.
    pub(crate) fn parsed(fields: &[httparse::Header<'_>]) -> Self {
        let size = fields.iter().map(|field| field.name.len() + field.value.len()).sum();
        let mut all = Headers { text: Vec::with_capacity(size), fields: Vec::with_capacity(fields.len()) };
        fields.iter().for_each(|field| all.push(field.name, field.value));
        all
    }

    fn push(&mut self, name: &str, value: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(name.as_bytes());
        let middle = self.text.len();
        self.text.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
        self.text.extend_from_slice(value);
        self.fields.push([start, middle, self.text.len()]);
    }

    fn raw(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let part = |from: usize, to: usize| self.text.get(from..to).unwrap_or_default();
        self.fields.iter().map(move |[start, middle, end]| (part(*start, *middle), part(*middle, *end)))
    }
}

fn visible(value: &[u8]) -> Option<&str> {
    let is_visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    std::str::from_utf8(value).ok().filter(|text| text.as_bytes().iter().all(is_visible))
}

/// Prints the names only, since the values hold keys.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut all = Headers::default();
        headers.into_iter().for_each(|(name, value)| all.push(name.as_ref(), value.as_ref().as_bytes()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_no_encoding() {
        for plain in ["", "identity", "Identity", " none "] {
            assert!(!is_encoded(plain), "{plain}");
        }
        for encoding in ["gzip", "br", "identity, gzip"] {
            assert!(is_encoded(encoding), "{encoding}");
        }
    }

    #[test]
    fn headers_are_found_in_any_case_and_kept_in_order() {
        let mut headers: Headers = [("X-A", "1"), ("b", ""), ("x-a", "2")].into_iter().collect();
        headers.push("c", b"\xff");
        headers.push("d", b"a\x01");
        assert_eq!(
            (headers.get("x-a"), headers.get("X-A"), headers.get("b")),
            (Some("1"), Some("1"), Some(""))
        );
        assert_eq!(
            (headers.get("c"), headers.get("d"), headers.get("x"), headers.get("")),
            (None, None, None, None)
        );
        assert_eq!(headers.values("x-a").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("x-a", "1"), ("b", ""), ("x-a", "2")]);
        assert_eq!(headers.len(), 5);
    }

    #[test]
    fn debug_output_has_no_values() {
        let headers: Headers =
            [("x-api-key", "sk-1"), ("authorization", "Bearer sk-2")].into_iter().collect();
        assert_eq!(format!("{headers:?}"), r#"["x-api-key", "authorization"]"#);
    }
}
