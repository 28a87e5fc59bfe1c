//! redb: a B-tree with transactions. 10,000 puts each, made durable some time later; all gets of a run in one transaction.

use crate::{counted_up, Store};
use redb::{AccessGuard, Database, Durability, Range, ReadOnlyTable, ReadableTable, Table, TableDefinition, WriteTransaction};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("map");
const WRITES_PER_TRANSACTION: u32 = 10_000;

/// A transaction and the table opened in it, which borrows it: dropped first.
struct Writer {
    table: Table<'static, &'static [u8], &'static [u8]>,
    transaction: *mut WriteTransaction,
    writes: u32,
}

pub struct Peer {
    writer: Option<Writer>,
    reader: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    walk: Option<Range<'static, &'static [u8], &'static [u8]>>,
    key: Option<AccessGuard<'static, &'static [u8]>>,
    value: Option<AccessGuard<'static, &'static [u8]>>,
    db: Database,
}

impl Peer {
    fn writer(&mut self) -> &mut Writer {
        if self.writer.as_ref().is_some_and(|writer| writer.writes == WRITES_PER_TRANSACTION) {
            self.writes_end();
        }
        let db = &self.db;
        let writer = self.writer.get_or_insert_with(|| {
            let mut transaction = Box::new(db.begin_write().expect("begin"));
            transaction.set_durability(Durability::Eventual);
            let transaction = Box::into_raw(transaction);
            // Lives until writes_end, which drops the table first.
            let table = unsafe { &*transaction }.open_table(TABLE).expect("table");
            Writer { table, transaction, writes: 0 }
        });
        writer.writes += 1;
        writer
    }
}

impl Store for Peer {
    const NAME: &'static std::ffi::CStr = c"redb";
    const SETTINGS: &'static std::ffi::CStr =
        c"redb 2, cache 4 GiB, Durability::Eventual, 10000 writes a transaction, one read transaction";
    const CAN_REMOVE: bool = true;
    const CAN_WALK: bool = true;

    fn open(directory: &str, _create: bool) -> Self {
        let path = format!("{directory}/map.redb");
        let db = Database::builder().set_cache_size(4 << 30).create(path).expect("open");
        Peer { writer: None, reader: None, walk: None, key: None, value: None, db }
    }

    fn reads_begin(&mut self) {
        self.reader = Some(self.db.begin_read().expect("begin").open_table(TABLE).expect("table"));
    }

    fn reads_end(&mut self) {
        self.key = None;
        self.value = None;
        self.reader = None;
    }

    fn writes_end(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        drop(writer.table);
        unsafe { Box::from_raw(writer.transaction) }.commit().expect("commit");
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.writer().table.insert(key, value).expect("insert");
    }

    fn get(&mut self, key: &[u8]) -> Option<&[u8]> {
        self.value = self.reader.as_ref()?.get(key).expect("get");
        self.value.as_ref().map(|value| value.value())
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        self.writer().table.remove(key).expect("remove").is_some()
    }

    fn increment(&mut self, key: &[u8]) {
        let table = &mut self.writer().table;
        let number = counted_up(table.get(key).expect("get").as_ref().map(|value| value.value()));
        table.insert(key, number.as_slice()).expect("insert");
    }

    fn walk_begin(&mut self) {
        self.walk = self.reader.as_ref().map(|table| table.range::<&[u8]>(..).expect("range"));
    }

    fn walk_next(&mut self) -> Option<(&[u8], &[u8])> {
        let (key, value) = self.walk.as_mut()?.next()?.expect("next");
        self.key = Some(key);
        self.value = Some(value);
        Some((self.key.as_ref()?.value(), self.value.as_ref()?.value()))
    }

    fn walk_end(&mut self) {
        self.walk = None;
    }
}
