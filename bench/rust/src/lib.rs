//! Peers written in Rust behind the C interface of `../engine.h`. A feature chooses the one that this library is.
//!
//! What an engine can not do is a NULL in the struct; a failure ends the program, as in the engines in C.

use std::ffi::{c_char, c_void, CStr};

#[cfg(feature = "crate")]
mod crate_map;
#[cfg(feature = "crate")]
use crate_map as peer;
#[cfg(feature = "redb")]
mod redb_map;
#[cfg(feature = "redb")]
use redb_map as peer;
#[cfg(feature = "sled")]
mod sled_map;
#[cfg(feature = "sled")]
use sled_map as peer;

/// What a peer does. The slices it gives out are valid until its next call.
pub trait Store: Sized {
    const NAME: &'static CStr;
    const SETTINGS: &'static CStr;
    const CAN_REMOVE: bool;
    const CAN_WALK: bool;
    fn open(directory: &str, create: bool) -> Self;
    fn reads_begin(&mut self) {}
    fn reads_end(&mut self) {}
    fn writes_end(&mut self) {}
    fn put(&mut self, key: &[u8], value: &[u8]);
    fn get(&mut self, key: &[u8]) -> Option<&[u8]>;
    fn remove(&mut self, _key: &[u8]) -> bool {
        unreachable!()
    }
    fn increment(&mut self, key: &[u8]) {
        let number = counted_up(self.get(key));
        self.put(key, &number);
    }
    fn walk_begin(&mut self) {}
    fn walk_next(&mut self) -> Option<(&[u8], &[u8])> {
        unreachable!()
    }
    fn walk_end(&mut self) {}
}

/// The number that is a value, plus 1.
pub fn counted_up(value: Option<&[u8]>) -> [u8; 8] {
    let bytes = value.expect("there is a number to count up").try_into().expect("8 bytes");
    u64::from_ne_bytes(bytes).wrapping_add(1).to_ne_bytes()
}

#[repr(C)]
pub struct Setup {
    directory: *const c_char,
    create: bool,
    u64_keys: bool,
    outgrown: bool,
    payload_bytes: u64,
    entries: u64,
}

type Handle = *mut c_void;
type Action = extern "C" fn(Handle);
type Next = extern "C" fn(Handle, *mut *const u8, *mut usize, *mut *const u8, *mut usize) -> bool;

/// `struct engine`, field by field.
#[repr(C)]
pub struct Engine {
    name: *const c_char,
    persistent: bool,
    reads_only: bool,
    processes: bool,
    describe: extern "C" fn(*mut c_char, usize, bool),
    open: extern "C" fn(*const Setup) -> Handle,
    close: Action,
    share: Option<extern "C" fn(Handle) -> Handle>,
    unshare: Option<Action>,
    expect: Option<extern "C" fn(Handle, *const c_void)>,
    reads_begin: Action,
    reads_end: Action,
    writes_end: Action,
    put: extern "C" fn(Handle, *const u8, usize, *const u8, usize),
    get: extern "C" fn(Handle, *const u8, usize, *mut *const u8, *mut usize) -> bool,
    remove: Option<extern "C" fn(Handle, *const u8, usize) -> bool>,
    increment: extern "C" fn(Handle, *const u8, usize),
    get_many: Option<extern "C" fn()>,
    write_many: Option<extern "C" fn()>,
    forget: Option<extern "C" fn()>,
    log_bytes: Option<extern "C" fn()>,
    walk_begin: Option<Action>,
    walk_next: Option<Next>,
    walk_end: Option<Action>,
}
unsafe impl Sync for Engine {} // It is never written to.

type Peer = peer::Peer;

fn peer<'a>(handle: Handle) -> &'a mut Peer {
    unsafe { &mut *handle.cast() }
}

fn slice<'a>(bytes: *const u8, size: usize) -> &'a [u8] {
    unsafe { std::slice::from_raw_parts(bytes, size) }
}

extern "C" fn describe(text: *mut c_char, text_size: usize, _u64_keys: bool) {
    let settings = Peer::SETTINGS.to_bytes();
    let size = settings.len().min(text_size - 1);
    unsafe {
        std::ptr::copy_nonoverlapping(settings.as_ptr().cast(), text, size);
        *text.add(size) = 0;
    }
}

extern "C" fn open(setup: *const Setup) -> Handle {
    let setup = unsafe { &*setup };
    let directory = unsafe { CStr::from_ptr(setup.directory) };
    let peer = Peer::open(directory.to_str().expect("a path in UTF-8"), setup.create);
    Box::into_raw(Box::new(peer)).cast()
}

extern "C" fn close(handle: Handle) {
    drop(unsafe { Box::from_raw(handle.cast::<Peer>()) });
}

extern "C" fn reads_begin(handle: Handle) {
    peer(handle).reads_begin();
}

extern "C" fn reads_end(handle: Handle) {
    peer(handle).reads_end();
}

extern "C" fn writes_end(handle: Handle) {
    peer(handle).writes_end();
}

extern "C" fn put(handle: Handle, key: *const u8, key_size: usize, value: *const u8, value_size: usize) {
    peer(handle).put(slice(key, key_size), slice(value, value_size));
}

extern "C" fn get(
    handle: Handle,
    key: *const u8,
    key_size: usize,
    value: *mut *const u8,
    value_size: *mut usize,
) -> bool {
    let Some(found) = peer(handle).get(slice(key, key_size)) else { return false };
    unsafe {
        *value = found.as_ptr();
        *value_size = found.len();
    }
    true
}

extern "C" fn remove(handle: Handle, key: *const u8, key_size: usize) -> bool {
    peer(handle).remove(slice(key, key_size))
}

extern "C" fn increment(handle: Handle, key: *const u8, key_size: usize) {
    peer(handle).increment(slice(key, key_size));
}

extern "C" fn walk_begin(handle: Handle) {
    peer(handle).walk_begin();
}

extern "C" fn walk_next(
    handle: Handle,
    key: *mut *const u8,
    key_size: *mut usize,
    value: *mut *const u8,
    value_size: *mut usize,
) -> bool {
    let Some((k, v)) = peer(handle).walk_next() else { return false };
    unsafe {
        *key = k.as_ptr();
        *key_size = k.len();
        *value = v.as_ptr();
        *value_size = v.len();
    }
    true
}

extern "C" fn walk_end(handle: Handle) {
    peer(handle).walk_end();
}

#[no_mangle]
pub static bench_engine: Engine = Engine {
    name: Peer::NAME.as_ptr(),
    persistent: true,
    reads_only: false,
    processes: false,
    describe,
    open,
    close,
    share: None,
    unshare: None,
    expect: None,
    reads_begin,
    reads_end,
    writes_end,
    put,
    get,
    remove: if Peer::CAN_REMOVE { Some(remove) } else { None },
    increment,
    get_many: None,
    write_many: None,
    forget: None,
    log_bytes: None,
    walk_begin: if Peer::CAN_WALK { Some(walk_begin) } else { None },
    walk_next: if Peer::CAN_WALK { Some(walk_next) } else { None },
    walk_end: if Peer::CAN_WALK { Some(walk_end) } else { None },
};
