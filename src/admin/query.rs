//! The parameters behind the question mark of a path.

/// The first value of the parameter of this name, as it was sent: escapes such as `%20` are not read.
pub(super) fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}
