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

/// The place of a field's value in the bytes of a form. `None`: the type names no boundary, or the form has no such field.
/// Takes time in proportion to the form.
pub fn form_field(form: &[u8], content_type: &str, name: &str) -> Option<Range<usize>> {
    let delimiter = format!("--{}", boundary(content_type)?);
    let delimiter = delimiter.as_bytes();
    let mut ends = memmem::find_iter(form, delimiter).peekable();
    while let Some(at) = ends.next() {
        let begin = at + delimiter.len();
        let end = ends.peek().copied()?;
        let part = form.get(begin..end)?;
        let Some(head_size) = memmem::find(part, b"\r\n\r\n") else { continue };
        if has_name(part.get(..head_size)?, name) {
            let value = begin + head_size + b"\r\n\r\n".len()..end.checked_sub(b"\r\n".len())?;
            return (form.get(value.end..end) == Some(b"\r\n") && value.start <= value.end).then_some(value);
        }
    }
    None
}

/// The boundary that a content type names.
fn boundary(content_type: &str) -> Option<&str> {
    let mut parameters = content_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, value) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?;
    let value = value.trim().trim_matches('"');
    (1..=BOUNDARY_SIZE_MAX).contains(&value.len()).then_some(value)
}

/// True if the headers of a part name it so.
fn has_name(head: &[u8], name: &str) -> bool {
    let Ok(head) = std::str::from_utf8(head) else { return false };
    let is_disposition = |line: &&str| {
        line.split_once(':')
            .is_some_and(|(field, _)| field.trim().eq_ignore_ascii_case("content-disposition"))
    };
    let parameters = head.lines().filter(is_disposition).flat_map(|line| line.split(';').skip(1));
    parameters
        .filter_map(|parameter| parameter.split_once('='))
        .any(|(key, value)| key.trim().eq_ignore_ascii_case("name") && value.trim().trim_matches('"') == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "multipart/form-data; boundary=x1";

    fn found(form: &str, kind: &str) -> Option<String> {
        form_field(form.as_bytes(), kind, "model").map(|place| form.get(place).unwrap().to_owned())
    }

    fn form(parts: &[&str]) -> String {
        let parts: Vec<String> = parts.iter().map(|part| format!("--x1\r\n{part}\r\n")).collect();
        format!("{}--x1--\r\n", parts.concat())
    }

    #[test]
    fn the_value_of_the_field_is_found() {
        let file = "Content-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav\r\n\r\n\0\r\n\r\nname=\"model\"";
        let model = "content-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1";
        let plain = "Content-Type: text/plain\r\nContent-Disposition: form-data; name=model\r\n\r\nwhisper-1";
        for parts in [[file, model], [model, file], [file, plain]] {
            assert_eq!(found(&form(&parts), KIND).as_deref(), Some("whisper-1"));
        }
        assert_eq!(found(&form(&[file]), KIND), None);
        let quoted = "multipart/form-data; charset=utf-8; Boundary=\"x1\"";
        assert_eq!(found(&form(&[model]), quoted).as_deref(), Some("whisper-1"));
        let empty = "content-disposition: form-data; name=\"model\"\r\n\r\n";
        assert_eq!(found(&form(&[empty]), KIND).as_deref(), Some(""));
    }

    #[test]
    fn a_form_that_is_broken_has_no_field() {
        let whole = form(&["content-disposition: form-data; name=\"model\"\r\n\r\nm"]);
        for size in 0..whole.len() - "--x1--\r\n".len() + 3 {
            assert_eq!(found(whole.get(..size).unwrap(), KIND), None, "{size}");
        }
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        for kind in ["", "multipart/form-data", "multipart/form-data; boundary=", &long, "application/json"] {
            assert_eq!(found(&whole, kind), None, "{kind}");
        }
        assert_eq!(found("--x1--x1--x1", KIND), None);
        assert_eq!(found(&"--x1\r\n\r\n".repeat(100_000), KIND), None);
    }
}
