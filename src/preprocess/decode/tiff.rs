//! TIFF files. The crate `tiff` unpacks the pixels, whatever they mean; what they mean is decided here: which
//! page, gray or palette, how many bits. A kind that is not read is an error that says what it is.

mod directory;
mod page;
mod pixels;
mod stored;

use image::DynamicImage;

use self::directory::{Directory, Tags};
use self::page::{Meaning, Page};
use super::header::ImageHeader;
use super::job::Job;
use super::source::Source;
use crate::error::Result;

pub(super) fn decode(reader: &mut impl Source, length: u64, job: &Job) -> Result<DynamicImage> {
    let (mut tags, mut pages) = pages(reader, length, job)?;
    let directory = pages.swap_remove(job.page(pages.len())?);
    let page = Page::read(&mut tags, directory).map_err(|what| job.failed(what))?;
    let pixels = u64::from(page.height).saturating_mul(page.width.into());
    let bytes = pixels.saturating_mul(page.stored_bytes().max(page.decoded_bytes()));
    job.require_size([page.height.into(), page.width.into()], bytes)?;
    let samples = stored::read(&mut tags, &page, job)?;
    let image = pixels::image(&mut tags, &page, samples).map_err(|what| job.failed(what))?;
    Ok(job.turned(image, page.orientation))
}

pub(super) fn header(reader: &mut impl Source, length: u64, job: &Job) -> Result<ImageHeader> {
    let (mut tags, mut pages) = pages(reader, length, job)?;
    let count = pages.len();
    let first = pages.swap_remove(0);
    let page = Page::read(&mut tags, first).map_err(|what| job.failed(what))?;
    let size = [page.height as usize, page.width as usize];
    Ok(ImageHeader {
        pages: count,
        bits: page.bits.max(8),
        is_float: page.is_float(),
        has_alpha: page.alpha.is_some(),
        is_gray: matches!(page.meaning, Meaning::Gray { .. }),
        always_turned: true,
        ..ImageHeader::new(size, page.orientation)
    })
}

/// The directories of the pages, at least one. Thumbnails and masks are no pages.
fn pages<'a, R: Source>(
    reader: &'a mut R,
    length: u64,
    job: &Job,
) -> Result<(Tags<'a, R>, Vec<Directory>)> {
    let failed = |what| job.failed(what);
    let mut tags = Tags::open(reader, length).map_err(failed)?;
    let pages = tags.pages().map_err(failed)?;
    if pages.is_empty() {
        return Err(job.failed("it holds only thumbnails or masks, no whole image"));
    }
    Ok((tags, pages))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod writer;
