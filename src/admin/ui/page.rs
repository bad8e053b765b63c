//! The paths below `/ui`, and the files that a browser gets.

/// A resource of the live page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UiPath<'p> {
    /// The page itself.
    Page,
    /// Its colours and its layout.
    Style,
    /// Its program.
    Script,
    /// The library that draws its charts.
    Charts,
    /// The events that feed it.
    Events,
    /// The recording of the request with this id.
    Recording(&'p str),
    /// Takes a key, and gives a session.
    Login,
    /// Ends the session.
    Logout,
}

/// The headers of each file. Scripts and styles come from here only, and nothing is sent anywhere else.
pub const PAGE_HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    // A new version of sparkgap has a new page: the browser asks each time.
    ("cache-control", "no-store"),
    // Every browser takes it; for curl there is --compressed.
    ("content-encoding", "gzip"),
];

/// The most characters of a request's id behind `req_`. Ours have 24.
const REQUEST_ID_SIZE_MAX: usize = 64;

const PAGE: &[u8] = include_bytes!("assets/index.html.gz");
const STYLE: &[u8] = include_bytes!("assets/ui.css.gz");
const SCRIPT: &[u8] = include_bytes!("assets/ui.js.gz");
const CHARTS: &[u8] = include_bytes!("assets/uPlot.js.gz");

impl<'p> UiPath<'p> {
    /// The resource of a path without the slash at its end, if it is one of the live page.
    pub fn find(path: &'p str) -> Option<Self> {
        match path.strip_prefix("/ui")? {
            "" => Some(UiPath::Page),
            "/ui.css" => Some(UiPath::Style),
            "/ui.js" => Some(UiPath::Script),
            "/uPlot.js" => Some(UiPath::Charts),
            "/events" => Some(UiPath::Events),
            "/login" => Some(UiPath::Login),
            "/logout" => Some(UiPath::Logout),
            other => other.strip_prefix("/recording/").filter(|id| is_request_id(id)).map(UiPath::Recording),
        }
    }

    /// The methods of the resource.
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            UiPath::Login | UiPath::Logout => &["POST"],
            UiPath::Page | UiPath::Style | UiPath::Script | UiPath::Charts | UiPath::Events => {
                &["GET", "HEAD"]
            }
            UiPath::Recording(_) => &["GET"],
        }
    }

    /// The content type and the compressed bytes of a file; `None` for what is made anew. The files are the same for
    /// everybody, so they need no key.
    pub fn file(self) -> Option<(&'static str, &'static [u8])> {
        match self {
            UiPath::Page => Some(("text/html; charset=utf-8", PAGE)),
            UiPath::Style => Some(("text/css; charset=utf-8", STYLE)),
            UiPath::Script => Some(("text/javascript; charset=utf-8", SCRIPT)),
            UiPath::Charts => Some(("text/javascript; charset=utf-8", CHARTS)),
            UiPath::Events | UiPath::Recording(_) | UiPath::Login | UiPath::Logout => None,
        }
    }
}

/// True for a text of the form of a request's id, such as `req_` and 24 characters.
fn is_request_id(text: &str) -> bool {
    let rest = text.strip_prefix("req_").unwrap_or_default();
    (1..=REQUEST_ID_SIZE_MAX).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: [(&[u8], &[u8]); 4] = [
        (PAGE, include_bytes!("assets/index.html")),
        (STYLE, include_bytes!("assets/ui.css")),
        (SCRIPT, include_bytes!("assets/ui.js")),
        (CHARTS, include_bytes!("assets/uPlot.js")),
    ];

    /// The checksum of gzip (RFC 1952).
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8)
                .fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    #[test]
    fn the_compressed_files_are_those_that_a_person_edits() {
        assert_eq!(crc(b"123456789"), 0xCBF4_3926);
        for (compressed, source) in SOURCES {
            let mut end = crc(source).to_le_bytes().to_vec();
            end.extend(u32::try_from(source.len()).unwrap().to_le_bytes());
            let name = String::from_utf8_lossy(&source[..40]);
            assert!(compressed.ends_with(&end), "run src/admin/ui/assets/pack: the file of {name:?} differs");
        }
    }

    #[test]
    fn the_files_stay_small() {
        let size: usize = SOURCES.iter().map(|(compressed, _)| compressed.len()).sum();
        assert!(size < 45_000, "{size} bytes");
    }

    #[test]
    fn texts_of_clients_are_inserted_as_text() {
        for (_, source) in SOURCES {
            let text = std::str::from_utf8(source).unwrap();
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "http://",
                "https://",
            ] {
                // The library names its home, and other pages stand in no file of ours.
                let text = text
                    .replace("https://github.com/leeoniya/uPlot", "")
                    .replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains(word), "{word}");
            }
        }
    }

    #[test]
    fn paths() {
        assert_eq!(UiPath::find("/ui"), Some(UiPath::Page));
        assert_eq!(UiPath::find("/ui/events"), Some(UiPath::Events));
        assert_eq!(UiPath::find("/ui/recording/req_0aZ"), Some(UiPath::Recording("req_0aZ")));
        let long = format!("/ui/recording/req_{}", "a".repeat(REQUEST_ID_SIZE_MAX + 1));
        for id in ["", "last", "req_", "req_a/b", "req_..", "req_%2e", "req_a b", "req_\u{e9}", "REQ_a"] {
            assert_eq!(UiPath::find(&format!("/ui/recording/{id}")), None, "{id}");
        }
        for path in ["", "/", "/u", "/uix", "/ui/", "/ui/x", "/ui/../ui", "/UI", "/ui/recording", &long] {
            assert_eq!(UiPath::find(path), None, "{path}");
        }
    }
}
