//! From guest ranges to runs: what is where, one BAT page at a time.
//!
//! ```text
//!   guest     ├─ block 4 ─┼─ block 5 ─┼─ block 6 ─┼─ block 7 ─┤
//!   BAT         data 9 M    data 10 M   zero        partial 30 M
//!   runs      └── data from 9 M ─────┘└── zero ──┘└data┘└absent┘└data┘
//! ```

use std::ops::Range;

use blockdev_core::{Extent, ExtentKind, HostFile, HostPlace, PAGE_BYTES, Result};

use super::pages::Page;
use super::tables::BatPage;
use crate::image::VhdxImage;
use crate::meta::bat::{ReadSemantics, Source, bitmap_place, payload_source};
use crate::meta::bitmap;
use crate::meta::geometry::Geometry;

const PAGE_BITS: u64 = PAGE_BYTES as u64 * 8;

/// A look along the disk, for one request: what it has found out of a partially present block holds until
/// it has passed it.
pub(crate) struct Walk<'a> {
    image: &'a VhdxImage,
    semantics: ReadSemantics,
    bits: Option<Bits>,
}

/// Which sectors of one partially present block are there, as far as one page of bits tells.
struct Bits {
    page: Page,
    /// The guest bytes that it tells of.
    guest: Range<u64>,
    /// Where the first of them is, or would be.
    place: u64,
}

impl VhdxImage {
    /// The longest run of one kind from guest byte `offset`, at most `len` bytes. The range lies
    /// inside the disk and is not empty.
    pub(crate) fn next_run(
        &self,
        offset: u64,
        len: u64,
        semantics: ReadSemantics,
    ) -> Result<Extent> {
        Walk::new(self, semantics).next_run(offset, len)
    }

    /// Where payload block `block` comes from; `None` when its entry is not in `page`.
    pub(crate) fn source(
        &self,
        page: &BatPage,
        block: u64,
        semantics: ReadSemantics,
    ) -> Result<Option<Source>> {
        let geometry = self.geometry();
        let index = geometry.payload_index(block);
        let Some(entry) = page.entry(index) else {
            return Ok(None);
        };
        let needed = geometry.block_len(block);
        let entry_offset = self.tables().entry_offset(index);
        let source = payload_source(entry, entry_offset, block, needed, self.frame(), semantics)?;
        Ok(Some(source))
    }
}

impl<'a> Walk<'a> {
    pub(crate) fn new(image: &'a VhdxImage, semantics: ReadSemantics) -> Self {
        Self {
            image,
            semantics,
            bits: None,
        }
    }

    /// As [`VhdxImage::next_run`].
    pub(crate) fn next_run(&mut self, offset: u64, len: u64) -> Result<Extent> {
        let mut run = self.step(offset, len)?;
        while run.len < len {
            // What comes next may be damaged; that is for whoever asks for it.
            let Ok(next) = self.step(offset + run.len, len - run.len) else {
                break;
            };
            if !run.joins(&next) {
                break;
            }
            run.len += next.len;
        }
        Ok(run)
    }

    /// The run at `offset` as far as one page of a table tells.
    fn step(&mut self, offset: u64, len: u64) -> Result<Extent> {
        let (image, geometry) = (self.image, self.image.geometry());
        let mut bits = self.bits.iter();
        if let Some(bits) = bits.find(|bits| bits.guest.contains(&offset)) {
            return Ok(bits.run(geometry, offset, len));
        }
        let block = geometry.block_of(offset);
        let within = offset & (geometry.block_size() - 1);
        let rest = geometry.block_size() - within;
        loop {
            // What ends in this block needs no page, once its entry is known.
            let (source, page) = if len <= rest && self.semantics == ReadSemantics::Effective {
                (image.block_source(block)?, None)
            } else {
                let page = image.tables().bat_page(geometry.payload_index(block))?;
                let source = image.source(&page, block, self.semantics)?;
                (source.expect("the page was asked for"), Some(page))
            };
            let Source::Partial(place) = source else {
                let run = extent(source, within, rest);
                return match page {
                    Some(page) if run.len < len => self.followed(run, &page, block, len),
                    _ => Ok(run.cut(len)),
                };
            };
            let bits = image.bits(offset, place)?;
            // The block may get another place between the two looks: these bits are not its own then.
            if image.block_source(block)? == source {
                let run = bits.run(geometry, offset, len);
                self.bits = Some(bits);
                return Ok(run);
            }
        }
    }

    /// `run`, which ends with block number `block`, with what follows it in `page` and joins it, up to
    /// `len` bytes.
    fn followed(&self, mut run: Extent, page: &BatPage, block: u64, len: u64) -> Result<Extent> {
        let (image, geometry) = (self.image, self.image.geometry());
        let mut last = page.entry(geometry.payload_index(block));
        let mut next = block + 1;
        while run.len < len {
            let entry = page.entry(geometry.payload_index(next));
            if entry.is_some() && entry == last && run.host.is_none() {
                // Blocks without a place are mostly like their neighbours: nothing to decide anew.
                run.len += geometry.block_size();
                next += 1;
                continue;
            }
            last = entry;
            match image.source(page, next, self.semantics) {
                Ok(Some(source)) => {
                    let whole = extent(source, 0, geometry.block_size());
                    if matches!(source, Source::Partial(_)) || !run.joins(&whole) {
                        break;
                    }
                    run.len += whole.len;
                    next += 1;
                }
                Ok(None) => {
                    if run.kind == ExtentKind::Absent && page.is_zero() {
                        let index = image.tables().skip_hole(page.end())?;
                        let from = geometry.first_block_from(index);
                        run.len += from
                            .saturating_sub(next)
                            .saturating_mul(geometry.block_size());
                    }
                    break;
                }
                Err(_) => break,
            }
        }
        Ok(run.cut(len))
    }
}

impl VhdxImage {
    /// The bits for guest byte `offset`, which lies in a partially present block whose place is `place`,
    /// and those behind it in their page.
    fn bits(&self, offset: u64, place: u64) -> Result<Bits> {
        let geometry = self.geometry();
        let block = geometry.block_of(offset);
        let chunk = geometry.chunk_of(block);
        let index = geometry.bitmap_index(chunk);
        let page = self.tables().bat_page(index)?;
        let entry = page.entry(index).expect("the page was asked for");
        let entry_offset = self.tables().entry_offset(index);
        let bitmap = bitmap_place(entry, entry_offset, chunk, self.frame().file_len)?;

        let bit = geometry.bitmap_bit(offset);
        let sector = geometry.logical_sector_size();
        let told = (PAGE_BITS - bit % PAGE_BITS) * sector - offset % sector;
        let in_block = geometry.block_range(block);
        Ok(Bits {
            page: self.tables().page_at(bitmap + bit / 8)?,
            guest: offset..in_block.end.min(offset + told),
            place: place + (offset - in_block.start),
        })
    }
}

impl Bits {
    /// The run at `offset`, which these tell of, of `len` bytes at most.
    fn run(&self, geometry: &Geometry, offset: u64, len: u64) -> Extent {
        let sector = geometry.logical_sector_size();
        let len = len.min(self.guest.end - offset);
        let into_sector = offset % sector;
        let as_index = |bits: u64| usize::try_from(bits).expect("bits of a page");
        let bit = as_index(geometry.bitmap_bit(offset) % PAGE_BITS);
        let most = as_index((into_sector + len).div_ceil(sector));
        let (present, sectors) = bitmap::run(&*self.page, bit, most);
        let len = (sectors as u64 * sector - into_sector).min(len);
        let source = if present {
            Source::Data(self.place)
        } else {
            Source::Absent
        };
        extent(source, offset - self.guest.start, len)
    }
}

/// `len` bytes that begin `within` bytes into a block from `source`.
fn extent(source: Source, within: u64, len: u64) -> Extent {
    match source {
        Source::Absent => Extent::new(ExtentKind::Absent, len),
        Source::Zero => Extent::new(ExtentKind::Zero, len),
        Source::Data(place) | Source::Partial(place) => {
            let host = HostPlace {
                file: HostFile::Image,
                offset: place + within,
            };
            Extent {
                host: Some(host),
                ..Extent::new(ExtentKind::Data, len)
            }
        }
    }
}
