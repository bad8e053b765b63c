//! Whether the bytes of a document, an image or a recording can be searched. Their form decides, and their label, and not
//! whether they happen to be text: a PDF file can be written in ASCII and still hide its words.

use memchr::memmem;

/// The part of a file in which readers look for the mark of a PDF file, in bytes.
const PDF_MARK_RANGE: usize = 1024;

/// The beginnings of formats that may be ASCII and hide their words: RTF, PostScript, archives and office files, recordings.
const HIDING: [&[u8]; 9] =
    [b"{\\rtf", b"%!PS", b"PK\x03\x04", b"RIFF", b"ID3\x02", b"ID3\x03", b"ID3\x04", b"OggS", b"fLaC"];

/// True if the bytes are an image in one of the formats of the Messages API.
pub(super) fn is_image(bytes: &[u8]) -> bool {
    let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    let marks: [&[u8]; 4] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"];
    is_webp || marks.iter().any(|mark| bytes.starts_with(mark))
}

/// True if the bytes are a file whose words a search cannot see, also if all of them are ASCII.
pub(super) fn hides_words(bytes: &[u8]) -> bool {
    let beginning = bytes.get(..PDF_MARK_RANGE).unwrap_or(bytes);
    let bare = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning).trim_ascii_start();
    let is_hiding = HIDING.iter().any(|mark| bare.starts_with(mark)) && !is_image(bytes);
    is_hiding || memmem::find(beginning, b"%PDF-").is_some()
}

/// True if a label names a file whose words a search cannot see. `application/json` is text.
pub(super) fn is_hiding_label(label: &str) -> bool {
    let kind = kind_of(label);
    let is_file = ["application/", "audio/", "video/"].iter().any(|beginning| kind.starts_with(beginning));
    is_file && kind != "application/json"
}

/// True if a label names an image.
pub(super) fn is_image_label(label: &str) -> bool {
    kind_of(label).starts_with("image/")
}

/// A media type without its parameters, in small letters.
fn kind_of(label: &str) -> String {
    label.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// True if the words of a part with this label, which may be empty, can be searched in its bytes.
pub fn is_searchable(label: &str, bytes: &[u8]) -> bool {
    let is_text = || std::str::from_utf8(bytes).is_ok_and(|text| !text.contains('\0'));
    !is_hiding_label(label) && !is_image_label(label) && !hides_words(bytes) && is_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_and_the_label_decide() {
        for (label, bytes, expected) in [
            ("", &b"hello"[..], true),
            ("text/plain; charset=utf-8", "Größe".as_bytes(), true),
            ("application/json", b"{}", true),
            ("text/plain", b"The magic of a PDF file is %PDF, then a version.", true),
            ("application/pdf", b"hello", false),
            (" Application/PDF ; x=y", b"hello", false),
            ("audio/wav", b"hello", false),
            ("image/png", b"hello", false),
            ("text/plain", b"%PDF-1.4 <424547>", false),
            ("", b"some bytes first\n%PDF-1.4", false),
            ("", b"\xef\xbb\xbf \n{\\rtf1 \\'42}", false),
            ("", b"%!PS-Adobe", false),
            ("", b"RIFF....WAVEfmt ", false),
            ("", b"a\0b", false),
            ("", b"\xff\xfe", false),
        ] {
            assert_eq!(is_searchable(label, bytes), expected, "{label} {bytes:?}");
        }
    }

    #[test]
    fn images_are_known_by_their_first_bytes() {
        for bytes in
            [&b"\x89PNG\r\n\x1a\n..."[..], b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x01\x02\x03\x04WEBPVP8 "]
        {
            assert!(is_image(bytes) && !hides_words(bytes), "{bytes:?}");
        }
        for bytes in [&b""[..], b"\x89PNG", b"%PDF-1.4", b"RIFF....WAVE", b"<svg>"] {
            assert!(!is_image(bytes), "{bytes:?}");
        }
        assert!(hides_words(b"GIF89a %PDF-1.4"), "two formats at once");
    }
}
