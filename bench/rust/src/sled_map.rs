//! sled in its fast mode. It writes to its files twice a second by itself, so the death of the process costs what was put
//! since: less is promised than by the others.

use crate::{counted_up, Store};
use sled::{Config, Db, IVec, Iter, Mode};

pub struct Peer {
    db: Db,
    key: IVec,
    value: IVec,
    walk: Option<Iter>,
}

impl Store for Peer {
    const NAME: &'static std::ffi::CStr = c"sled";
    const SETTINGS: &'static std::ffi::CStr = c"sled 0.34, HighThroughput, cache 4 GiB, flush every 500 ms";
    const CAN_REMOVE: bool = true;
    const CAN_WALK: bool = true;

    fn open(directory: &str, _create: bool) -> Self {
        let config = Config::default().path(directory).mode(Mode::HighThroughput).cache_capacity(4 << 30);
        let db = config.open().expect("open");
        Peer { db, key: IVec::default(), value: IVec::default(), walk: None }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.db.insert(key, value).expect("insert");
    }

    fn get(&mut self, key: &[u8]) -> Option<&[u8]> {
        self.value = self.db.get(key).expect("get")?;
        Some(&self.value)
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        self.db.remove(key).expect("remove").is_some()
    }

    fn increment(&mut self, key: &[u8]) {
        self.db.update_and_fetch(key, |value| Some(counted_up(value).to_vec())).expect("update");
    }

    fn walk_begin(&mut self) {
        self.walk = Some(self.db.iter());
    }

    fn walk_next(&mut self) -> Option<(&[u8], &[u8])> {
        (self.key, self.value) = self.walk.as_mut()?.next()?.expect("next");
        Some((&self.key, &self.value))
    }

    fn walk_end(&mut self) {
        self.walk = None;
    }
}
