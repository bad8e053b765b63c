//! One Lua VM with all the owner's files loaded, and one call in it.
//!
//! Knows the sandbox and the limits. Does not know the configuration, policies or counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, LuaOptions, ObjectLike as _, StdLib, Table, Value as LuaValue};

use super::guard::Guard;
use super::kind::Hook;
use super::options::{HookLimits, LoadOptions};
use super::outcome::{PRELUDE, Returned, message_of};
use super::request::{Context, HookRequest};
use super::source::Source;
use super::view::{self, Frame};
use super::{convert, globals};
use crate::json::Value;

/// The parts of the standard library that hooks may use. Coroutines are not among them: each has its own debug hook, so
/// nested ones would multiply the time limit. The prelude removes parts of `os`.
const LIBRARY: [StdLib; 5] = [StdLib::TABLE, StdLib::STRING, StdLib::UTF8, StdLib::MATH, StdLib::OS];

/// A VM. One thread uses it at a time.
pub(super) struct Vm {
    lua: Lua,
    guard: Arc<Guard>,
    use_access: Function,
    /// The hooks, in the order of `Hooks::defined`.
    functions: Vec<Function>,
    limits: HookLimits,
}

impl Vm {
    /// Makes an empty VM with its limits, sandbox and globals.
    pub(super) fn new(options: &LoadOptions) -> mlua::Result<Vm> {
        let library = if options.unsafe_hooks {
            StdLib::ALL_SAFE
        } else {
            LIBRARY.into_iter().fold(StdLib::NONE, |all, one| all | one)
        };
        let lua = Lua::new_with(library, LuaOptions::new())?;
        lua.set_memory_limit(options.limits.memory_bytes)?;
        let guard = Guard::install(&lua)?;
        guard.start(options.limits.load);
        convert::create_array_marker(&lua)?;
        globals::install(&lua, &guard, options)?;
        let prelude: Table = lua
            .load(include_str!("prelude.lua"))
            .set_name(format!("={PRELUDE}"))
            .set_mode(ChunkMode::Text)
            .call((
                options.unsafe_hooks,
                globals::search_function(&lua, &guard)?,
                globals::expand_function(&lua)?,
                globals::find_plain_function(&lua)?,
                globals::repeat_function(&lua)?,
                globals::attach_function(&lua)?,
                globals::bytes_function(&lua)?,
                globals::is_native_function(&lua)?,
            ))?;
        view::register(&lua, &prelude)?;
        let use_access = prelude.get("use")?;
        Ok(Vm { lua, guard, use_access, functions: Vec::new(), limits: options.limits })
    }

    /// Runs one file and returns its table.
    pub(super) fn evaluate(&self, source: &Source) -> mlua::Result<LuaValue> {
        self.guard.start(self.limits.load);
        self.lua.load(source.text.as_str()).set_name(source.chunk_name()).set_mode(ChunkMode::Text).eval()
    }

    /// Sets the hooks, in the order of `Hooks::defined`.
    pub(super) fn set_functions(&mut self, functions: Vec<Function>) {
        self.functions = functions;
    }

    /// Runs `on_load`.
    pub(super) fn call_on_load(&self, index: usize, config: &Value<'_>) -> mlua::Result<()> {
        self.guard.start(self.limits.load);
        let Some(function) = self.functions.get(index) else { return Ok(()) };
        function.call(convert::to_lua(&self.lua, &self.guard, config)?)
    }

    /// Runs a hook that belongs to no request. The error has a traceback.
    pub(super) fn tell(&self, index: usize, arguments: [&str; 3]) -> Result<(), String> {
        self.guard.start(self.limits.call);
        let Some(function) = self.functions.get(index) else { return Ok(()) };
        let [name, state, why] = arguments;
        function.call((name, state, why)).map_err(|error| message_of(&error))
    }

    /// Runs one hook on `subject`. `read` receives the value that it returned and may change the subject; if `read`
    /// fails, the call has failed. A failed call leaves subject and request as they were. The error has a traceback.
    pub(super) fn call<'a, T>(
        &self,
        index: usize,
        hook: Hook,
        subject: &mut Value<'a>,
        request: &mut HookRequest,
        read: &dyn Fn(Returned<'a>, &mut Value<'a>) -> Result<T, String>,
    ) -> Result<T, String> {
        self.guard.start(self.limits.call);
        let frame = Frame::new(next_call(), &self.guard, request, subject, hook == Hook::Request);
        let outcome = self.run(index, hook, &frame).map_err(|error| message_of(&error));
        let outcome = outcome.and_then(|(returned, context)| Ok((frame.finish(returned, read)?, context)));
        if outcome.is_err() {
            frame.roll_back();
        }
        drop(frame);
        let (decision, context) = outcome?;
        if let Some(context) = context {
            request.context = Context(context);
        }
        Ok(decision)
    }

    /// The memory that the VM holds, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.lua.used_memory()
    }

    /// True if the VM hit a limit, or has so much garbage that it soon will.
    pub(super) fn is_spent(&self) -> bool {
        self.guard.expired() || self.lua.used_memory() > self.limits.memory_bytes / 2
    }

    fn run<'a>(
        &self,
        index: usize,
        hook: Hook,
        frame: &Frame<'_, 'a>,
    ) -> mlua::Result<(Returned<'a>, Option<Value<'static>>)> {
        let Some(function) = self.functions.get(index) else {
            return Err(mlua::Error::runtime("the hook is not there any more"));
        };
        let lua = &self.lua;
        lua.scope(|scope| {
            let access = scope.create_function(|lua, arguments| frame.access(lua, arguments))?;
            self.use_access.call::<()>(access)?;
            let outcome = apply(lua, function, hook, frame);
            let taken_back = self.use_access.call::<()>(());
            let outcome = outcome?;
            taken_back?;
            Ok(outcome)
        })
    }
}

fn apply<'a>(
    lua: &Lua,
    function: &Function,
    hook: Hook,
    frame: &Frame<'_, 'a>,
) -> mlua::Result<(Returned<'a>, Option<Value<'static>>)> {
    let request = frame.request_view(lua)?;
    let returned: LuaValue = match hook {
        Hook::Request => function.call(request)?,
        Hook::Search => {
            let query: LuaValue = frame.subject_view(lua)?.get("query")?;
            match function.call((query, request))? {
                // `return nil, "reason"`, as Lua's own functions fail.
                (LuaValue::Nil, why @ LuaValue::String(_)) => {
                    let refusal = lua.create_table()?;
                    refusal.set("error", why)?;
                    LuaValue::Table(refusal)
                }
                (returned, _) => returned,
            }
        }
        _ => function.call((frame.subject_view(lua)?, request))?,
    };
    let returned = match returned {
        LuaValue::Nil => Returned::Nothing,
        LuaValue::Boolean(false) => Returned::False,
        LuaValue::UserData(view) if frame.is_subject(&view) => Returned::Subject,
        value @ (LuaValue::Table(_) | LuaValue::String(_)) => {
            Returned::Value(frame.to_json(lua, &value, 0).map_err(|error| {
                mlua::Error::runtime(format!("the returned value: {}", message_of(&error)))
            })?)
        }
        other => Returned::Other(other.type_name()),
    };
    let context = frame.context(lua).map_err(|error| {
        mlua::Error::runtime(format!("req.ctx holds plain data only: {}", message_of(&error)))
    })?;
    Ok((returned, context))
}

/// A number that no other call in this process has, so that a view of one call is never taken for a view of another.
fn next_call() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}
