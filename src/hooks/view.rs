//! Lazy views: `req` and the JSON tree of the current request, which Lua reads and writes without a copy.
//!
//! A view is a path from the root, and the number of the call that it belongs to. The tree itself stays with the
//! caller. One function, which lives as long as the call, resolves paths in the tree, so that no unsafe code is needed
//! (it is forbidden here). The inverse of every write is kept, so that a failed hook leaves no trace.

mod tree;

use std::cell::RefCell;

use mlua::{AnyUserData, Function, Lua, Table, UserDataRef, Value as LuaValue};

use super::convert::{self, FromLua};
use super::guard::Guard;
use super::outcome::Returned;
use super::request::HookRequest;
use crate::http::SECRET_HEADERS;
use crate::json::{DEPTH_MAX, Value};
use tree::{PathStep, Undo, child_of, key_text, resolve, resolve_mut, write};

/// The starting point of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    /// `req`: the plain fields.
    Request,
    /// `req.headers`.
    Headers,
    /// The JSON tree: `req.body` in `on_request`, the first argument elsewhere.
    Subject,
}

/// The value that Lua holds.
pub(super) struct View {
    call: u64,
    root: Root,
    path: Vec<PathStep>,
}

/// Gives views their metamethods, which come from the prelude, in a new VM.
pub(super) fn register(lua: &Lua, prelude: &Table) -> mlua::Result<()> {
    let metamethods = ["index", "newindex", "len", "eq", "pairs"]
        .into_iter()
        .map(|name| Ok((format!("__{name}"), prelude.get::<Function>(name)?)))
        .collect::<mlua::Result<Vec<_>>>()?;
    lua.register_userdata_type::<View>(|registry| {
        use mlua::UserDataFields;
        registry.add_meta_field("__name", "view");
        for (name, function) in metamethods {
            registry.add_meta_field(name, function);
        }
    })
}

/// One call of one hook: the values that its views stand for.
pub(super) struct Frame<'f, 'a> {
    call: u64,
    guard: &'f Guard,
    request: &'f HookRequest,
    /// True if the subject is the request's own body, which hooks see as `req.body`.
    subject_is_body: bool,
    subject: RefCell<&'f mut Value<'a>>,
    undo: RefCell<Vec<Undo<'a>>>,
    context: RefCell<Option<Table>>,
}

/// The operations of a view, numbered as in the prelude.
const GET: u8 = 1;
const SET: u8 = 2;
const LENGTH: u8 = 3;
const KEYS: u8 = 4;
const SAME: u8 = 5;
const ENCODE: u8 = 6;

impl<'f, 'a> Frame<'f, 'a> {
    /// The frame of the call with number `call`.
    pub(super) fn new(
        call: u64,
        guard: &'f Guard,
        request: &'f HookRequest,
        subject: &'f mut Value<'a>,
        subject_is_body: bool,
    ) -> Self {
        Frame {
            call,
            guard,
            request,
            subject_is_body,
            subject: RefCell::new(subject),
            undo: RefCell::new(Vec::new()),
            context: RefCell::new(None),
        }
    }

    /// The view that Lua gets as `req`.
    pub(super) fn request_view(&self, lua: &Lua) -> mlua::Result<AnyUserData> {
        self.view(lua, Root::Request, Vec::new())
    }

    /// The view of the root of the JSON tree.
    pub(super) fn subject_view(&self, lua: &Lua) -> mlua::Result<AnyUserData> {
        self.view(lua, Root::Subject, Vec::new())
    }

    /// True if this is a view of the whole tree.
    pub(super) fn is_subject(&self, view: &AnyUserData) -> bool {
        view.borrow::<View>()
            .is_ok_and(|view| view.call == self.call && view.root == Root::Subject && view.path.is_empty())
    }

    /// A copy of a value from Lua, which may contain views of this call.
    pub(super) fn to_json(&self, lua: &Lua, value: &LuaValue, depth: usize) -> mlua::Result<Value<'a>> {
        let view = |view: &AnyUserData| self.copy_of(view, depth);
        FromLua { marker: convert::array_marker(lua)?, guard: self.guard, view: &view }.value(value, depth)
    }

    /// The contents of `req.ctx` after the call; `None` if no hook used it.
    pub(super) fn context(&self, lua: &Lua) -> mlua::Result<Option<Value<'static>>> {
        let Some(table) = self.context.borrow_mut().take() else { return Ok(None) };
        Ok(Some(self.to_json(lua, &LuaValue::Table(table), 0)?.into_owned()))
    }

    /// Calls `read` with the value that the hook returned.
    pub(super) fn finish<T>(
        &self,
        returned: Returned<'a>,
        read: &dyn Fn(Returned<'a>, &mut Value<'a>) -> Result<T, String>,
    ) -> Result<T, String> {
        read(returned, &mut self.subject.borrow_mut())
    }

    /// Undoes every write of this call.
    pub(super) fn roll_back(&self) {
        let mut subject = self.subject.borrow_mut();
        for undo in self.undo.borrow_mut().drain(..).rev() {
            undo.apply(&mut subject);
        }
    }

    /// The one function behind all views.
    pub(super) fn access(
        &self,
        lua: &Lua,
        (operation, view, key, value): (u8, Option<UserDataRef<View>>, LuaValue, LuaValue),
    ) -> mlua::Result<LuaValue> {
        let Some(view) = view.filter(|_| operation != ENCODE) else {
            let text = convert::encode(self.guard, &self.to_json(lua, &key, 0)?)?;
            return Ok(LuaValue::String(lua.create_string(text)?));
        };
        if view.call != self.call {
            return Err(mlua::Error::runtime(
                "this request has ended: a view of it was kept in a global or an upvalue",
            ));
        }
        match operation {
            GET => self.get(lua, &view, &key),
            SET => self.set(lua, &view, &key, &value).map(|()| LuaValue::Nil),
            LENGTH => self.length(&view),
            KEYS => self.keys(lua, &view),
            SAME => Ok(LuaValue::Boolean(same(&view, &key))),
            _ => Ok(LuaValue::Nil),
        }
    }

    fn view(&self, lua: &Lua, root: Root, path: Vec<PathStep>) -> mlua::Result<AnyUserData> {
        lua.create_any_userdata(View { call: self.call, root, path })
    }

    fn get(&self, lua: &Lua, view: &View, key: &LuaValue) -> mlua::Result<LuaValue> {
        match view.root {
            Root::Request => self.field(lua, key),
            Root::Headers => match key_text(key) {
                // An error, not nil: with nil, a rule that depends on the key would treat every client as one without a
                // key.
                Some(name) if SECRET_HEADERS.iter().any(|secret| name.eq_ignore_ascii_case(secret)) => {
                    Err(mlua::Error::runtime(format!(
                        "req.headers: {name} is not shown to hooks, as it holds a secret; req.user names the owner of the client's key"
                    )))
                }
                Some(name) => self
                    .request
                    .header(&name)
                    .map_or(Ok(LuaValue::Nil), |v| Ok(LuaValue::String(lua.create_string(v)?))),
                None => Ok(LuaValue::Nil),
            },
            Root::Subject => {
                let subject = self.subject.borrow();
                let node = resolve(&subject, &view.path)?;
                let Some((step, child)) = child_of(node, key) else { return Ok(LuaValue::Nil) };
                if !matches!(child, Value::Array(_) | Value::Object(_)) {
                    return convert::scalar_to_lua(lua, child);
                }
                let mut path = Vec::with_capacity(view.path.len() + 1);
                path.extend_from_slice(&view.path);
                path.push(step);
                Ok(LuaValue::UserData(self.view(lua, Root::Subject, path)?))
            }
        }
    }

    /// A field of `req`.
    fn field(&self, lua: &Lua, key: &LuaValue) -> mlua::Result<LuaValue> {
        let name = key_text(key).unwrap_or_default();
        match name.as_str() {
            "body" if self.subject_is_body => Ok(LuaValue::UserData(self.subject_view(lua)?)),
            "body" => Err(mlua::Error::runtime(
                "req.body is there in on_request only; keep what you need in req.ctx",
            )),
            "headers" => Ok(LuaValue::UserData(self.view(lua, Root::Headers, Vec::new())?)),
            "ctx" => {
                let mut context = self.context.borrow_mut();
                if let Some(table) = context.as_ref() {
                    return Ok(LuaValue::Table(table.clone()));
                }
                let LuaValue::Table(table) = convert::to_lua(lua, self.guard, &self.request.context.0)?
                else {
                    return Ok(LuaValue::Nil);
                };
                *context = Some(table.clone());
                Ok(LuaValue::Table(table))
            }
            "tool_names" => {
                let names: Vec<Value<'_>> =
                    self.request.tool_names.iter().map(|name| Value::from(name.as_str())).collect();
                let names = convert::to_lua(lua, self.guard, &names.into())?;
                Ok(LuaValue::Function(lua.create_function(move |_, ()| Ok(names.clone()))?))
            }
            name => match self.request.field(name) {
                Some(Value::Null) => Ok(LuaValue::Nil),
                Some(value) => convert::scalar_to_lua(lua, &value),
                None => Err(mlua::Error::runtime(super::nearest::unknown(
                    "req has no field",
                    name,
                    &HookRequest::FIELDS,
                ))),
            },
        }
    }

    fn set(&self, lua: &Lua, view: &View, key: &LuaValue, value: &LuaValue) -> mlua::Result<()> {
        if view.root != Root::Subject {
            let name = key_text(key).unwrap_or_default();
            return Err(mlua::Error::runtime(format!(
                "req.{name} is read-only: change req.body, keep things in req.ctx, or return {{ model =, upstream = }}"
            )));
        }
        if view.path.len() >= DEPTH_MAX {
            return Err(mlua::Error::runtime(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        // The value is made before the tree is borrowed for the change, since it may hold views of the tree.
        let value = match value {
            LuaValue::Nil => None,
            value => Some(self.to_json(lua, value, view.path.len() + 1)?),
        };
        let mut subject = self.subject.borrow_mut();
        let undo = write(resolve_mut(&mut subject, &view.path)?, &view.path, key, value)?;
        self.undo.borrow_mut().extend(undo);
        Ok(())
    }

    fn length(&self, view: &View) -> mlua::Result<LuaValue> {
        if view.root != Root::Subject {
            return Ok(LuaValue::Integer(0));
        }
        let subject = self.subject.borrow();
        let length = resolve(&subject, &view.path)?.as_array().map_or(0, <[_]>::len);
        Ok(LuaValue::Integer(i64::try_from(length).unwrap_or(i64::MAX)))
    }

    /// The keys of an object; nil for an array.
    fn keys(&self, lua: &Lua, view: &View) -> mlua::Result<LuaValue> {
        let subject = self.subject.borrow();
        let keys: Vec<&str> = match view.root {
            Root::Request => HookRequest::FIELDS
                .into_iter()
                .filter(|name| *name != "body" || self.subject_is_body)
                .collect(),
            Root::Headers => self.request.headers.iter().map(|(name, _)| name.as_str()).collect(),
            Root::Subject => match resolve(&subject, &view.path)? {
                Value::Object(object) => object.iter().map(|(key, _)| key).collect(),
                _ => return Ok(LuaValue::Nil),
            },
        };
        let table = lua.create_table_with_capacity(keys.len(), 0)?;
        for (i, key) in keys.into_iter().enumerate() {
            self.guard.step()?;
            table.raw_set(i + 1, key)?;
        }
        Ok(LuaValue::Table(table))
    }

    fn copy_of(&self, view: &AnyUserData, depth: usize) -> mlua::Result<Value<'a>> {
        let view = view.borrow::<View>()?;
        if view.call != self.call || view.root != Root::Subject {
            return Err(mlua::Error::runtime("only a view of this request's own JSON can be stored"));
        }
        let subject = self.subject.borrow();
        let node = resolve(&subject, &view.path)?;
        self.guard.check_stack()?;
        self.guard.spend(cost(node))?;
        if depth + depth_of(node) > DEPTH_MAX {
            return Err(mlua::Error::runtime(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(node.clone())
    }
}

/// The memory that a copy takes, in bytes, approximately.
fn cost(value: &Value<'_>) -> usize {
    const NODE_BYTES: usize = 64;
    NODE_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(cost).sum(),
            Value::Object(object) => object.iter().map(|(key, item)| key.len() + cost(item)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInteger(_) => 0,
        }
}

fn depth_of(value: &Value<'_>) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
        Value::Object(object) => 1 + object.iter().map(|(_, item)| depth_of(item)).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInteger(_) | Value::String(_) => 0,
    }
}

fn same(view: &View, other: &LuaValue) -> bool {
    let LuaValue::UserData(other) = other else { return false };
    other
        .borrow::<View>()
        .is_ok_and(|other| other.call == view.call && other.root == view.root && other.path == view.path)
}
