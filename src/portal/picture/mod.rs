//! Pictures: none is shown but as this program has drawn it anew.
//!
//! An attached picture is decoded within bounds, made smaller and encoded again: what it carried
//! beside its points (places, names, scripts, another file) stays behind. Decoders read what
//! strangers wrote, so they work on threads of their own, few at a time; one that panics ends its own
//! thread's work, and the reader is told that the picture can't be shown.

use super::{
    Desk, Fault,
    read::{attachment_name, bounded, gather},
    session::Visitor,
    show,
};
use crate::{
    language::Text,
    mail::parts::{Part, PartIndex},
    store::{AuditDetail, AuditKind},
    vault::Access,
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::{
        HeaderValue, Method, StatusCode,
        header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use image::{
    ColorType, DynamicImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
};
use minijinja::{Value, context};
use std::{io::Cursor, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

type Answer = Result<Response, Fault>;

/// Bytes of a picture read at most.
pub(super) const MAX_FILE: usize = 25 << 20;
/// Points of a picture at most.
const MAX_POINTS: u64 = 50_000_000;
/// Points of a side at most.
const MAX_SIDE: u32 = 20_000;
/// Bytes that a decoder may take.
const MAX_ALLOC: u64 = 192 << 20;
/// Bytes that a JPEG may take: some 25 million points, as a telephone takes them.
const MAX_JPEG: u64 = 272 << 20;
/// Pictures decoded at one time, whoever asks.
const AT_ONCE: usize = 2;
/// How long a picture may take, with the wait for its turn.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a PNG above which a picture without transparency becomes a JPEG.
const MAX_PNG: usize = 3 << 20;
/// JPEG quality.
const QUALITY: u8 = 85;
/// Pictures of a message shown in small in its list of attachments.
pub(super) const MAX_THUMBNAILS: usize = 60;

/// How large a picture is wanted: points of its longer side.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size {
    Thumbnail,
    Page,
    /// In the message's own text.
    Inline,
}
impl Size {
    const fn side(self) -> u32 {
        match self {
            Self::Thumbnail => 240,
            Self::Page => 1_800,
            Self::Inline => 1_200,
        }
    }
}

/// A picture that we have encoded.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) bytes: Vec<u8>,
    /// Its media type.
    pub(super) kind: &'static str,
}

/// Why a picture is not shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum PictureError {
    #[error("neither PNG, JPEG, GIF nor WebP")]
    Format,
    #[error("too large")]
    TooLarge,
    /// What the decoder says may quote the file, so it is not told on.
    #[error("not whole, or not in order")]
    Image(#[from] image::ImageError),
}

/// Where pictures are drawn: so many at once, and no more.
#[derive(Debug, Clone)]
pub(super) struct Studio(Arc<Semaphore>);
impl Default for Studio {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Studio {
    /// What `draw` makes of the bytes that `fetch` brings once it is their turn: no picture waits in
    /// memory.
    async fn drawn(
        &self,
        fetch: impl Future<Output = Result<Vec<u8>, Fault>>,
        draw: impl FnOnce(&[u8]) -> Result<Picture, PictureError> + Send + 'static,
    ) -> Result<Picture, Fault> {
        let drawing = async {
            let turn = Arc::clone(&self.0).acquire_owned().await;
            let turn = turn.map_err(|_| Fault::Work("no picture is drawn any more"))?;
            let bytes = fetch.await?;
            // The turn ends with the work, also where nobody waits for it any longer.
            let drawn = spawn_blocking(move || {
                let drawn = draw(&bytes);
                drop((bytes, turn));
                drawn
            });
            match drawn.await {
                Ok(Ok(picture)) => Ok(picture),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "portal: a picture is not shown");
                    Err(UNSHOWN)
                }
                Err(_) => {
                    tracing::warn!("portal: a decoder of pictures panicked");
                    Err(UNSHOWN)
                }
            }
        };
        let waited = timeout(PATIENCE, drawing).await;
        waited.unwrap_or(Err(Fault::Status(StatusCode::SERVICE_UNAVAILABLE)))
    }
}

/// Draws a picture anew, its longer side as asked or as it is, upright (EXIF), without anything but
/// its points.
fn draw(bytes: &[u8], size: Size) -> Result<Picture, PictureError> {
    let format = image::guess_format(bytes).map_err(|_| PictureError::Format)?;
    if !matches!(
        format,
        ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Gif | ImageFormat::WebP
    ) {
        return Err(PictureError::Format);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOC);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let points = u64::from(width) * u64::from(height);
    if points > MAX_POINTS
        || decoder.total_bytes() > MAX_ALLOC
        || format == ImageFormat::Jpeg && jpeg_bytes(points, decoder.color_type()) > MAX_JPEG
    {
        return Err(PictureError::TooLarge);
    }
    let upright = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    let side = size.side();
    if width > side || height > side {
        picture = picture.thumbnail(side, side);
    }
    picture.apply_orientation(upright);
    encode(&picture, format == ImageFormat::Jpeg)
}

/// What decoding a JPEG takes. The decoder keeps the coefficients of one that comes in several scans,
/// each of two bytes, and says nothing of them; then there are the points.
const fn jpeg_bytes(points: u64, colour: ColorType) -> u64 {
    // What is in colour may have four components, and three colours come out.
    let (components, colours) = if matches!(colour, ColorType::L8) { (1, 1) } else { (4, 3) };
    points * (2 * components + colours)
}

/// JPEG for what came so and for what is large; PNG for drawings and what one sees through.
fn encode(picture: &DynamicImage, photo: bool) -> Result<Picture, PictureError> {
    let clear = picture.color().has_alpha();
    if !photo || clear {
        let mut bytes = Vec::new();
        let (width, height) = (picture.width(), picture.height());
        let encoder = PngEncoder::new(&mut bytes);
        if clear {
            let points = picture.to_rgba8();
            encoder.write_image(&points, width, height, image::ExtendedColorType::Rgba8)?;
        } else {
            let points = picture.to_rgb8();
            encoder.write_image(&points, width, height, image::ExtendedColorType::Rgb8)?;
        }
        if clear || bytes.len() <= MAX_PNG {
            return Ok(Picture { bytes, kind: "image/png" });
        }
    }
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(&picture.to_rgb8())?;
    Ok(Picture { bytes, kind: "image/jpeg" })
}

/// True for an attachment that says it is a picture of a kind that may be shown.
pub(super) fn is_picture(part: &Part) -> bool {
    const KINDS: [&str; 6] =
        ["image/png", "image/jpeg", "image/jpg", "image/pjpeg", "image/gif", "image/webp"];
    const ENDS: [&str; 5] = [".png", ".jpg", ".jpeg", ".gif", ".webp"];
    let named = || {
        let name = part.name.as_deref().unwrap_or_default().to_lowercase();
        ENDS.iter().any(|end| name.ends_with(end))
    };
    let encoded = part.body.end.saturating_sub(part.body.start);
    let fits = encoded > 0 && encoded <= MAX_FILE as u64 * 3 / 2;
    fits && (KINDS.contains(&part.content_type.as_str())
        || part.content_type == "application/octet-stream" && named())
}

/// What the reader is told of a picture that can't be drawn.
const UNSHOWN: Fault = Fault::Status(StatusCode::UNPROCESSABLE_ENTITY);

impl Desk {
    /// A part of a message as a picture.
    pub(super) async fn picture_of(
        &self,
        access: &Access,
        part: &Part,
        size: Size,
    ) -> Result<Picture, Fault> {
        self.drawn(size, async {
            let content = self.vault.read(access, bounded(&part.body, MAX_FILE * 3 / 2)).await?;
            let (bytes, cut) = gather(content, part.encoding, MAX_FILE).await?;
            if cut { Err(UNSHOWN) } else { Ok(bytes) }
        })
        .await
    }

    /// Draws what `fetch` brings.
    pub(super) async fn drawn(
        &self,
        size: Size,
        fetch: impl Future<Output = Result<Vec<u8>, Fault>>,
    ) -> Result<Picture, Fault> {
        self.studio.drawn(fetch, move |bytes| draw(bytes, size)).await
    }

    async fn attached(
        &self,
        (visitor, method): (&Visitor, &Method),
        (id, number): (&str, &str),
        size: Size,
    ) -> Answer {
        let access = self.leave(visitor, id).await?;
        let (_, index) = self.vault.index(&access).await?;
        let (number, part) = numbered(&index, number)?;
        let picture = self.picture_of(&access, part, size).await?;
        // Thumbnails come with the message's page, and count as the reading of that.
        let detail = match size {
            Size::Page => Some(AuditDetail::Picture(number)),
            Size::Thumbnail | Size::Inline => None,
        };
        self.was_read((visitor, method), &access, AuditKind::MessageRead, detail).await?;
        let mut response = Body::from(picture.bytes).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(picture.kind));
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("inline"));
        let sandbox =
            HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'");
        headers.insert(CONTENT_SECURITY_POLICY, sandbox);
        Ok(response)
    }
}

/// The attachment of that number, if it may be a picture.
fn numbered<'i>(index: &'i PartIndex, number: &str) -> Result<(usize, &'i Part), Fault> {
    let number = number.parse::<usize>().ok();
    (1..)
        .zip(index.attachments())
        .find(|(at, part)| Some(*at) == number && is_picture(part))
        .ok_or(Fault::Status(StatusCode::NOT_FOUND))
}

/// `GET /inbox/ID/attachments/N/thumbnail`
pub(super) async fn thumbnail(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path((id, number)): Path<(String, String)>,
    method: Method,
) -> Answer {
    desk.attached((&visitor, &method), (&id, &number), Size::Thumbnail).await
}

/// `GET /inbox/ID/attachments/N/picture`: what the viewer shows.
pub(super) async fn picture(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path((id, number)): Path<(String, String)>,
    method: Method,
) -> Answer {
    desk.attached((&visitor, &method), (&id, &number), Size::Page).await
}

/// `GET /inbox/ID/attachments/N/view`: the picture alone, with ways to the one before and after.
pub(super) async fn view(
    State(desk): State<Arc<Desk>>,
    Extension(visitor): Extension<Visitor>,
    Path((id, number)): Path<(String, String)>,
) -> Answer {
    let origin = desk.origin(desk.leave(&visitor, &id).await?).await?;
    let (number, part) = numbered(&origin.index, &number)?;
    let all: Vec<usize> = (1..)
        .zip(origin.index.attachments())
        .filter(|(_, part)| is_picture(part))
        .map(|(number, _)| number)
        .collect();
    let at = all.iter().position(|other| *other == number).unwrap_or_default();
    let near = |at: Option<usize>| at.and_then(|at| all.get(at)).copied().unwrap_or_default();
    let name = attachment_name(part, number);
    let values = context! {
        tab => "inbox",
        id => origin.grant().id.to_string(),
        subject => Value::from(origin.heading().shown()),
        name => &name,
        number => number,
        at => at + 1,
        count => all.len(),
        previous => near(at.checked_sub(1)),
        next => near(at.checked_add(1)),
        size => show::size(super::read::decoded_size(part)),
    };
    desk.pages.answer(StatusCode::OK, "picture.html", Text::verbatim(name), &visitor, values)
}

/// Sample values of the viewer's page.
pub(super) fn samples() -> [Value; 2] {
    [0, 2].map(|near| {
        context! {
            id => "id", subject => "sample", name => "sample.png", number => 1, at => 1, count => near + 1,
            previous => near, next => near, size => "1 kB",
        }
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::{named as file, png, width_of};
