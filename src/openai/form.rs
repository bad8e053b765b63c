//! Finds a field in a form (`multipart/form-data`), which requests about audio are.

use std::ops::Range;

use memchr::memmem;

/// The longest boundary (RFC 2046, section 5.1.1), in bytes.
const BOUNDARY_SIZE_MAX: usize = 70;

/// True if this content type is that of a form with files.
pub fn is_form(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("multipart/form-data")
}

/// The form with its files, and other bytes that are not text, cut to their size. `None` if the content type names no boundary.
/// Takes time in proportion to the form.
pub fn cut_form_files(form: &[u8], content_type: &str) -> Option<Vec<u8>> {
    let delimiter = format!("--{}", boundary(content_type)?);
    let mut kept = Vec::with_capacity(form.len().min(64 * 1024));
    let mut from = 0;
    for at in memmem::find_iter(form, delimiter.as_bytes()).chain([form.len()]) {
        let part = form.get(from..at).unwrap_or_default();
        from = at;
        let (head, value) =
            match memmem::find(part, b"\r\n\r\n").and_then(|end| part.split_at_checked(end + 4)) {
                Some(split) => split,
                None => (&[][..], part),
            };
        let (value, end) = value.strip_suffix(b"\r\n").map_or((value, &b""[..]), |value| (value, b"\r\n"));
        kept.extend_from_slice(head);
        let is_file = memmem::find(&head.to_ascii_lowercase(), b"filename").is_some();
        // One that was cut already keeps its size.
        let is_cut = value.starts_with(b"cut:") && value.ends_with(b":bytes");
        match (is_file && !value.is_empty() && !is_cut) || std::str::from_utf8(value).is_err() {
            true => kept.extend_from_slice(format!("cut:{}:bytes", value.len()).as_bytes()),
            false => kept.extend_from_slice(value),
        }
        kept.extend_from_slice(end);
    }
    Some(kept)
}

/// One part of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct FormPart<'f> {
    /// Its content type; empty if it names none.
    pub label: &'f str,
    /// Its value.
    pub value: &'f [u8],
}

/// The parts of a form in their order. `None`: the form is broken.
pub fn form_parts<'f>(form: &'f [u8], content_type: &str) -> Option<Vec<FormPart<'f>>> {
    let delimiter = format!("--{}", boundary(content_type)?);
    let mut parts = Vec::new();
    let mut places = memmem::find_iter(form, delimiter.as_bytes()).peekable();
    while let Some(at) = places.next() {
        let part = form.get(at + delimiter.len()..places.peek().copied().unwrap_or(form.len()))?;
        if part.starts_with(b"--") {
            continue;
        }
        let head_size = memmem::find(part, b"\r\n\r\n")?;
        let head = std::str::from_utf8(part.get(..head_size)?).ok()?;
        let label = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-type").then(|| value.trim())
        });
        let value = part.get(head_size + b"\r\n\r\n".len()..)?;
        let value = value.strip_suffix(b"\r\n").unwrap_or(value);
        parts.push(FormPart { label: label.unwrap_or_default(), value });
    }
    Some(parts)
}

/// The characters of a boundary beside letters and digits (RFC 2046, section 5.1.1), without the blank.
const BOUNDARY_MARKS: &[u8] = b"'()+_,-./:=?";

const NO_BOUNDARY: &str = "content-type: name the boundary of the form once, in at most 70 plain characters: multipart/form-data; boundary=X";
const BROKEN: &str = "the form is broken: each part begins with --BOUNDARY on a line of its own and a content-disposition, and \
                      --BOUNDARY-- ends the last one";
const ODD_NAME: &str = "the form has a field whose name can be read in two ways: write it once, as name=\"...\", and leave \
                        quotation marks and backslashes out of names";
const REPEATED: &str = "model: the form has this field more than once: send it once";

/// The place of the value of a field in the bytes of a form; `None` if the form has no such field. Takes time in proportion
/// to the form.
///
/// Servers read odd forms in different ways. A form in which one of them could find another value is refused, so that the
/// model that was checked is the one that the upstream reads.
///
/// # Errors
/// No boundary, a broken form, a name that can be read in two ways, or the field twice; the text says which.
pub fn form_field(form: &[u8], content_type: &str, name: &str) -> Result<Option<Range<usize>>, &'static str> {
    let delimiter = format!("--{}", boundary(content_type).ok_or(NO_BOUNDARY)?);
    let delimiter = delimiter.as_bytes();
    let mut found = None;
    let mut is_closed = false;
    let mut places = memmem::find_iter(form, delimiter).peekable();
    while let Some(at) = places.next() {
        let begin = at + delimiter.len();
        let end = places.peek().copied().unwrap_or(form.len());
        let part = form.get(begin..end).unwrap_or_default();
        is_closed = part.starts_with(b"--");
        if is_closed {
            continue;
        }
        let head_size = memmem::find(part, b"\r\n\r\n").ok_or(BROKEN)?;
        let head = part.get(..head_size).unwrap_or_default();
        if field_name(head)? != name.as_bytes() {
            continue;
        }
        let value = begin + head_size + b"\r\n\r\n".len()..end.saturating_sub(b"\r\n".len());
        if value.start > value.end || form.get(value.end..end) != Some(b"\r\n") {
            return Err(BROKEN);
        }
        if found.replace(value).is_some() {
            return Err(REPEATED);
        }
    }
    if found.is_some() && !is_closed { Err(BROKEN) } else { Ok(found) }
}

/// The boundary that a content type names once, in plain characters.
fn boundary(content_type: &str) -> Option<&str> {
    let parameters = content_type.split(';').skip(1).map(|text| text.split_once('=').unwrap_or((text, "")));
    let is_one = |name: &str| name.trim().get(..8).is_some_and(|name| name.eq_ignore_ascii_case("boundary"));
    let mut boundaries = parameters.filter(|(name, _)| is_one(name));
    let ((name, value), None) = (boundaries.next()?, boundaries.next()) else { return None };
    let value = value.trim();
    let value = value.strip_prefix('"').map_or(Some(value), |value| value.strip_suffix('"'))?;
    let is_plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || BOUNDARY_MARKS.contains(&byte));
    (name.trim().len() == 8 && is_plain && (1..=BOUNDARY_SIZE_MAX).contains(&value.len())).then_some(value)
}

/// The name of the field of a part with these headers, before which the line of the delimiter ends.
fn field_name(head: &[u8]) -> Result<&[u8], &'static str> {
    // Some servers also end lines by \n or \r alone.
    let mut lines = head.strip_prefix(b"\r\n").ok_or(BROKEN)?;
    let mut name = None;
    loop {
        let end = memmem::find(lines, b"\r\n").unwrap_or(lines.len());
        let line = lines.get(..end).unwrap_or_default();
        // A line that goes on in the next one could hide a name.
        if line.first().is_none_or(u8::is_ascii_whitespace)
            || line.iter().any(|byte| b"\r\n\0".contains(byte))
        {
            return Err(BROKEN);
        }
        let colon = memchr::memchr(b':', line).ok_or(BROKEN)?;
        let (field, value) = line.split_at_checked(colon).ok_or(BROKEN)?;
        if field.trim_ascii().eq_ignore_ascii_case(b"content-disposition")
            && name.replace(disposition_name(value)?).is_some()
        {
            return Err(ODD_NAME);
        }
        match lines.get(end + 2..) {
            Some(rest) => lines = rest,
            None => return name.ok_or(BROKEN),
        }
    }
}

/// The parameter `name` of a content-disposition, which it must have once and in plain form.
fn disposition_name(value: &[u8]) -> Result<&[u8], &'static str> {
    let semicolon = |text: &[u8]| memchr::memchr(b';', text).unwrap_or(text.len());
    let mut rest = value.get(semicolon(value)..).unwrap_or_default();
    let mut found = None;
    while let Some(parameter) = rest.strip_prefix(b";") {
        let equals = memchr::memchr(b'=', parameter).ok_or(ODD_NAME)?;
        let (key, value) = parameter.split_at_checked(equals).ok_or(ODD_NAME)?;
        let value = value.get(1..).unwrap_or_default().trim_ascii_start();
        let content;
        (content, rest) = match value.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = memchr::memchr(b'"', quoted).ok_or(ODD_NAME)?;
                let (content, behind) = quoted.split_at_checked(end).ok_or(ODD_NAME)?;
                (content, behind.get(1..).unwrap_or_default().trim_ascii_start())
            }
            None => {
                let (content, behind) = value.split_at_checked(semicolon(value)).ok_or(ODD_NAME)?;
                (content.trim_ascii_end(), behind)
            }
        };
        let key = key.trim_ascii();
        // A backslash before a quotation mark ends the text for some readers and not for others.
        let is_odd =
            content.ends_with(b"\\") || content.contains(&b'"') || key.contains(&b';') || key.contains(&b'"');
        let is_name = key.get(..4).is_some_and(|key| key.eq_ignore_ascii_case(b"name"));
        if is_odd || (is_name && (key.len() != 4 || content.iter().any(|byte| b"\\%".contains(byte)))) {
            return Err(ODD_NAME);
        }
        if is_name && found.replace(content).is_some() {
            return Err(ODD_NAME);
        }
    }
    found.filter(|_| rest.is_empty()).ok_or(ODD_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_other_bytes_are_cut_to_their_size() {
        let kind = "multipart/form-data; boundary=x";
        let cut = |form: &[u8]| cut_form_files(form, kind).map(|form| String::from_utf8(form).unwrap());
        let form = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nplain\r\n--x\r\nContent-Disposition: form-data; name=\"f\"; FileName=\"f.wav\"\r\n\r\nRIFF\r\n\r\n.\r\n--x\r\n\r\n\xff\xfe\r\n--x--\r\n";
        let expected = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nplain\r\n--x\r\nContent-Disposition: form-data; name=\"f\"; FileName=\"f.wav\"\r\n\r\ncut:9:bytes\r\n--x\r\n\r\ncut:2:bytes\r\n--x--\r\n";
        assert_eq!(cut(form).unwrap(), expected);
        assert_eq!(cut(expected.as_bytes()).unwrap(), expected, "what was cut keeps its size");
        for odd in ["", "--x", "--x--", "no form", "--x\r\n\r\n", "--x\r\n\r\n\r\n--x"] {
            assert_eq!(cut(odd.as_bytes()).unwrap(), odd);
        }
        assert_eq!(cut(b"\xff").unwrap(), "cut:1:bytes");
        assert_eq!(cut_form_files(form, "multipart/form-data"), None);
        assert_eq!(cut(&b"--x".repeat(100_000)).unwrap().len(), 300_000, "linear time");
    }

    const KIND: &str = "multipart/form-data; boundary=x1";

    fn found(form: &str, kind: &str) -> Result<Option<String>, &'static str> {
        let place = form_field(form.as_bytes(), kind, "model")?;
        Ok(place.map(|place| form.get(place).unwrap().to_owned()))
    }

    fn form(parts: &[&str]) -> String {
        let parts: Vec<String> = parts.iter().map(|part| format!("--x1\r\n{part}\r\n")).collect();
        format!("{}--x1--\r\n", parts.concat())
    }

    const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav\r\n\r\n\0\r\n\r\nname=\"model\"";
    const MODEL: &str = "content-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1";

    #[test]
    fn the_value_of_the_field_is_found() {
        let plain =
            "Content-Type: text/plain\r\nContent-Disposition: form-data; NAME = model\r\n\r\nwhisper-1";
        let path = "Content-Disposition: form-data; name=\"file\"; filename=\"C:\\a;b\\m%22.wav\"; filename*=UTF-8''a\r\n\r\n";
        for parts in [[FILE, MODEL], [MODEL, FILE], [FILE, plain], [path, MODEL]] {
            assert_eq!(found(&form(&parts), KIND), Ok(Some("whisper-1".to_owned())), "{parts:?}");
        }
        assert_eq!(found(&form(&[FILE]), KIND), Ok(None));
        let quoted = "multipart/form-data; charset=utf-8; Boundary=\"x1\"";
        assert_eq!(found(&form(&[MODEL]), quoted), Ok(Some("whisper-1".to_owned())));
        let empty = "content-disposition: form-data; name=\"model\"\r\n\r\n";
        assert_eq!(found(&form(&[empty]), KIND), Ok(Some(String::new())));
    }

    #[test]
    fn the_parts_of_a_form_are_listed() {
        let form = form(&[FILE, MODEL]);
        let parts = form_parts(form.as_bytes(), KIND).unwrap();
        let expected = [("audio/wav", "\0\r\n\r\nname=\"model\""), ("", "whisper-1")];
        let found: Vec<_> =
            parts.iter().map(|part| (part.label, std::str::from_utf8(part.value).unwrap())).collect();
        assert_eq!(found, expected);
        assert_eq!(form_parts(b"--x1\r\nno head", KIND), None);
        assert_eq!(form_parts(form.as_bytes(), "multipart/form-data"), None);
    }

    #[test]
    fn a_form_that_hides_a_second_model_is_refused() {
        assert_eq!(found(&form(&[MODEL, FILE, MODEL]), KIND), Err(REPEATED));
        assert_eq!(
            found(&form(&[MODEL, "CONTENT-disposition: form-data; NAME=\"model\"\r\n\r\nb"]), KIND),
            Err(REPEATED)
        );
        assert_eq!(found(&(form(&[MODEL]) + &form(&[MODEL])), KIND), Err(REPEATED));
        for (disposition, error) in [
            (r#"form-data; name="m\odel""#, ODD_NAME),
            ("form-data; name*=UTF-8''model", ODD_NAME),
            (r#"form-data; name*0="mo"; name*1="del""#, ODD_NAME),
            (r#"form-data; name="a"; name="model""#, ODD_NAME),
            (r#"form-data; name="m%6fdel""#, ODD_NAME),
            (r#"form-data; filename="\"; name=model; x=\""; name="file""#, ODD_NAME),
            (r#"form-data; x="a" name="model"; name="b""#, ODD_NAME),
            ("form-data", ODD_NAME),
            ("form-data; name", ODD_NAME),
            ("form-data; x=1;\r\n name=\"model\"", ODD_NAME),
            ("form-data; name=\"a\"\r\n ;x=\"model\"", BROKEN),
            ("form-data; name=\"a\"\ncontent-disposition: form-data; name=\"model\"", BROKEN),
            ("form-data; name=\"a\"\r\ncontent-disposition: form-data; name=\"model\"", ODD_NAME),
        ] {
            let part = format!("content-disposition: {disposition}\r\n\r\nSECRET");
            assert_eq!(found(&form(&[MODEL, &part]), KIND), Err(error), "{disposition}");
        }
        assert_eq!(found(&form(&[MODEL, "\r\nSECRET"]), KIND), Err(BROKEN));
        assert_eq!(found(&form(&[MODEL]).replacen("--x1\r\n", "--x1\n", 1), KIND), Err(BROKEN));
    }

    #[test]
    fn a_form_that_is_broken_is_refused() {
        let whole = form(&["content-disposition: form-data; name=\"model\"\r\n\r\nm"]);
        for size in 0..whole.len() - "--\r\n".len() {
            assert_ne!(found(whole.get(..size).unwrap(), KIND), Ok(Some("m".to_owned())), "{size}");
        }
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        for kind in [
            "",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            &long,
            "multipart/form-data; boundary=x1; boundary=x2",
            "multipart/form-data; boundary*=x1",
            "multipart/form-data; boundary=\"x1",
            "multipart/form-data; boundary=x 1",
        ] {
            assert_eq!(found(&whole, kind), Err(NO_BOUNDARY), "{kind}");
        }
        assert_eq!(found("--x1--x1--x1", KIND), Err(BROKEN));
        assert_eq!(found(&"--x1\r\n\r\n".repeat(100_000), KIND), Err(BROKEN));
    }
}
