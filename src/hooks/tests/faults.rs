//! Hooks that loop, bomb, recurse and lie: the request goes on (or is refused), the failure is counted, the VM is
//! replaced, and the next request is served as if nothing had been.
