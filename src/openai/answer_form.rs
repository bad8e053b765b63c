//! The form in which a server answers, by the beginning of its body and by its content type: some servers send JSON without
//! saying so, some say so of events, and a reverse proxy may answer with a page.

use super::markup::page_text;

/// The form of the body of an answer of status 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerForm {
    /// Server-sent events.
    Events,
    /// One object of JSON.
    Whole,
    /// A page for people, such as the login of a reverse proxy.
    Page,
}

/// The beginnings of the lines of an event.
const EVENT_LINES: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];

impl AnswerForm {
    /// The form of a body that begins with these bytes, which may be none yet.
    pub fn of(content_type: Option<&str>, beginning: &[u8]) -> AnswerForm {
        let is_of = |kind| content_type.is_some_and(|named| named.starts_with(kind));
        // No line of an event begins with a brace.
        let beginning = beginning.trim_ascii_start();
        let is_event = EVENT_LINES.iter().any(|line| beginning.starts_with(line));
        let is_page = is_of("text/html") || (is_of("text/plain") && !beginning.is_empty());
        if beginning.starts_with(b"<") || (is_page && !is_event && !beginning.starts_with(b"{")) {
            AnswerForm::Page
        } else if (is_of("application/json") && !is_event) || beginning.starts_with(b"{") {
            AnswerForm::Whole
        } else {
            AnswerForm::Events
        }
    }
}

/// The words of a page for people, or the whole text if it has no tags.
pub fn page_words(page: &[u8]) -> String {
    let page = String::from_utf8_lossy(page);
    page_text(page.trim_start()).unwrap_or_else(|| page.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_decides_before_the_content_type() {
        for (kind, beginning, expected) in [
            ("text/event-stream", "", AnswerForm::Events),
            ("text/event-stream", "data: {", AnswerForm::Events),
            ("text/event-stream", " {\"id\"", AnswerForm::Whole),
            ("application/json", "", AnswerForm::Whole),
            ("application/json", ": ping", AnswerForm::Events),
            ("application/json", "<html>", AnswerForm::Page),
            ("text/html; charset=utf-8", "", AnswerForm::Page),
            ("text/html", "data: {", AnswerForm::Events),
            ("text/plain", "", AnswerForm::Events),
            ("text/plain", "hello", AnswerForm::Page),
            ("text/plain", "{}", AnswerForm::Whole),
        ] {
            assert_eq!(AnswerForm::of(Some(kind), beginning.as_bytes()), expected, "{kind} {beginning}");
        }
        assert_eq!(AnswerForm::of(None, b"hello"), AnswerForm::Events);
    }
}
