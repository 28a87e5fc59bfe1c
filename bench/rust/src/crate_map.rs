//! The crate `opendiskmap` 0.1.0, whose name and job this project has taken up: bytes to bytes in memory-mapped files. It can
//! neither remove nor walk.

use crate::Store;
use opendiskmap::{Bytes, DiskHashMap, MMapFile};
use std::path::Path;

pub struct Peer(DiskHashMap<Bytes, Bytes, MMapFile>);

impl Store for Peer {
    const NAME: &'static std::ffi::CStr = c"crate";
    const SETTINGS: &'static std::ffi::CStr = c"Rust crate opendiskmap 0.1.0, DiskHashMap<Bytes, Bytes, MMapFile>";
    const CAN_REMOVE: bool = false;
    const CAN_WALK: bool = false;

    fn open(directory: &str, create: bool) -> Self {
        let path = Path::new(directory);
        Peer(if create { DiskHashMap::new_in(path) } else { DiskHashMap::load_from(path) }.expect("open"))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key, value).expect("insert");
    }

    fn get(&mut self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(key).expect("get")
    }
}
