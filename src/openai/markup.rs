//! Error pages in HTML, such as those of a proxy before a model server: finds the text that a person would read.

use crate::shown::cut;

/// The longest page that is read, in bytes: an error stands at its beginning.
const PAGE_SIZE_MAX: usize = 16 * 1024;

/// The longest text that is taken from a page, in bytes. A longer one is rather a whole web site.
const TEXT_SIZE_MAX: usize = 300;

/// Elements whose content is not text for a person, or repeats the text.
const UNSEEN: [&str; 4] = ["head", "title", "script", "style"];

/// The character references that error pages have, and their characters.
/// `&amp;` is the last: its character must not begin another reference.
const REFERENCES: [(&str, &str); 8] = [
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", "\""),
    ("&#39;", "'"),
    ("&#x27;", "'"),
    ("&apos;", "'"),
    ("&nbsp;", " "),
    ("&amp;", "&"),
];

/// The beginning and the end of a comment. It may hold tags: a whole stack trace, or a page for old browsers.
const COMMENT: &str = "!--";
const COMMENT_END: &str = "-->";

/// The text of a page in HTML or XML, in one line; `None` if the text is not such a page.
pub(super) fn page_text(page: &str) -> Option<String> {
    // DashScope's plain texts begin with `<400>`.
    page.strip_prefix('<')?.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '!' | '?')).then(
        || {
            let page = cut(page, PAGE_SIZE_MAX);
            let seen = seen(page);
            let mut text = seen.split_whitespace().collect::<Vec<_>>().join(" ");
            for (reference, character) in REFERENCES {
                text = text.replace(reference, character);
            }
            cut(&text, TEXT_SIZE_MAX).to_string()
        },
    )
}

/// The text between the tags, with a blank in place of each tag. Takes linear time.
fn seen(page: &str) -> String {
    let mut seen = String::new();
    // The unseen element or comment that is open, if any. An unseen element inside it does not matter.
    let mut unseen: Option<&str> = None;
    for part in page.split('<').skip(1) {
        if unseen == Some(COMMENT) || (unseen.is_none() && part.starts_with(COMMENT)) {
            let end = part.split_once(COMMENT_END);
            unseen = end.is_none().then_some(COMMENT);
            seen.push(' ');
            seen.push_str(end.map_or("", |(_, text)| text));
            continue;
        }
        let (tag, text) = part.split_once('>').unwrap_or((part, ""));
        let is_end = tag.starts_with('/');
        let name = tag.trim_start_matches('/');
        let name = name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        match unseen {
            Some(open) if is_end && open.eq_ignore_ascii_case(name) => unseen = None,
            None if !is_end => unseen = UNSEEN.into_iter().find(|unseen| unseen.eq_ignore_ascii_case(name)),
            _ => {}
        }
        if unseen.is_none() {
            seen.push(' ');
            seen.push_str(text);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::page_text;

    #[test]
    fn the_text_of_a_page_is_what_a_person_reads() {
        for (page, expected) in [
            (
                "<html><body>400 Bad Request: field `frobnicate` is unknown</body></html>",
                "400 Bad Request: field `frobnicate` is unknown",
            ),
            (
                "<!DOCTYPE html><HTML><HEAD><title>502</title><STYLE>p > a {}</STYLE></HEAD>\n<body><h1>502 Bad \nGateway</h1><hr>nginx</body>",
                "502 Bad Gateway nginx",
            ),
            ("<html><script>if (a < b) { x() }</script><p>a &lt;b&gt; &amp;lt;", "a <b> &lt;"),
            ("<?xml version=\"1.0\"?><Error><Message>No key</Message></Error>", "No key"),
            ("<html><head><title>never closed", ""),
            ("<p>field &#x27;a&#x27; &apos;b&apos;", "field 'a' 'b'"),
            (
                "<!-- a > b --><body>502<!-- at List<int> x -> y\n<p>trace</p> --> Bad <!---->Gateway<!-- never closed <p>x",
                "502 Bad Gateway",
            ),
            ("<p", ""),
        ] {
            assert_eq!(page_text(page).as_deref(), Some(expected), "{page}");
        }
        for plain in ["", "no page", "<400> InternalError", "a <b> c", "<"] {
            assert_eq!(page_text(plain), None, "{plain}");
        }
        assert_eq!(page_text(&format!("<p>{}", "é".repeat(9999))).map(|text| text.len()), Some(300));
        assert!(page_text(&"<script>".repeat(999_999)).is_some_and(|text| text.is_empty()));
    }
}
