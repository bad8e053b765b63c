//! The files in `hooks/`: each is loaded and run.

use super::*;

#[test]
fn the_embedded_default_sends_every_name_to_the_first_upstream() {
    let loaded = Hooks::load(&[], vec![upstream("main"), upstream("other")], options()).unwrap();
    assert_eq!(loaded.config.upstreams[0].name, "main");
    let alias = crate::route::find(&loaded.config.aliases, "claude-anything").unwrap();
    assert_eq!((alias.upstream.as_str(), &alias.model), ("main", &None));
    assert!(Hook::ALL.iter().all(|hook| !loaded.hooks.defines(*hook)));
}
