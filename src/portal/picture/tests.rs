//! What decoders are given, and what comes out.
use super::{AT_ONCE, MAX_JPEG, PictureError, Size, Studio, draw, is_picture, jpeg_bytes};
use crate::mail::parts::{Part, PartRole, TransferEncoding};
use crate::portal::Fault;
use axum::http::StatusCode;
use image::{
    ColorType, DynamicImage, ImageEncoder, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage,
    codecs::gif::GifEncoder,
};
use std::io::Cursor;

/// Red above, blue below.
fn two_colours(width: u32, height: u32) -> DynamicImage {
    let half = height / 2;
    let colour = |_, y| if y < half { Rgb([200, 0, 0]) } else { Rgb([0, 0, 200]) };
    RgbImage::from_fn(width, height, colour).into()
}
/// A picture file of that format.
fn file(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    two_colours(width, height).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}
/// A PNG.
pub(in crate::portal) fn png(width: u32, height: u32) -> Vec<u8> {
    file(ImageFormat::Png, width, height)
}
/// A file of that kind of picture.
pub(in crate::portal) fn named(kind: &str) -> Vec<u8> {
    file(ImageFormat::from_extension(kind).unwrap(), 40, 20)
}
/// How wide a picture is.
pub(in crate::portal) fn width_of(bytes: &[u8]) -> u32 {
    read(bytes).width()
}
fn read(bytes: &[u8]) -> DynamicImage {
    image::load_from_memory(bytes).unwrap()
}
/// A JPEG that says by EXIF how it is to be turned, and where it was taken.
fn turned(orientation: u8) -> Vec<u8> {
    let jpeg = file(ImageFormat::Jpeg, 40, 20);
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    exif.extend(b"SECRET PLACE");
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

#[test]
fn each_kind_comes_out_smaller_and_in_a_kind_of_ours() {
    for (format, kind) in [
        (ImageFormat::Png, "image/png"),
        (ImageFormat::Jpeg, "image/jpeg"),
        (ImageFormat::Gif, "image/png"),
        (ImageFormat::WebP, "image/png"),
    ] {
        let drawn = draw(&file(format, 600, 300), Size::Thumbnail).unwrap();
        assert_eq!(drawn.kind, kind, "{format:?}");
        let picture = read(&drawn.bytes);
        assert_eq!((picture.width(), picture.height()), (240, 120), "{format:?}");
        let small = read(&draw(&file(format, 8, 4), Size::Page).unwrap().bytes);
        assert_eq!((small.width(), small.height()), (8, 4), "never larger than it is");
    }
}

#[test]
fn photographs_stand_upright_and_tell_nothing_else() {
    let drawn = draw(&turned(6), Size::Page).unwrap();
    let picture = read(&drawn.bytes).to_rgb8();
    assert_eq!(picture.dimensions(), (20, 40), "a quarter turn");
    let (right, left) = (picture.get_pixel(18, 20), picture.get_pixel(2, 20));
    assert!(right[0] > 150 && left[2] > 150, "what was above is on the right: {right:?} {left:?}");
    let carries = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
    assert!(carries(&turned(6), b"SECRET PLACE"));
    assert!(!carries(&drawn.bytes, b"SECRET") && !carries(&drawn.bytes, b"Exif"));
}

#[test]
fn what_is_behind_or_inside_a_picture_stays_behind() {
    let script = b"<script>alert(1)</script>PK\x03\x04";
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif] {
        let polyglot = [file(format, 10, 10).as_slice(), script].concat();
        let drawn = draw(&polyglot, Size::Page).unwrap();
        assert!(!drawn.bytes.windows(7).any(|w| w == b"<script"), "{format:?}");
    }
}

#[test]
fn of_moving_pictures_the_first_is_shown() {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    let frame = |colour| image::Frame::new(RgbaImage::from_pixel(5, 5, Rgba(colour)));
    let frames = [frame([255, 0, 0, 255]), frame([0, 255, 0, 255])];
    encoder.encode_frames(frames).unwrap();
    drop(encoder);
    let picture = read(&draw(&bytes, Size::Page).unwrap().bytes).to_rgb8();
    assert!(picture.get_pixel(2, 2)[0] > 200, "{:?}", picture.get_pixel(2, 2));
}

#[test]
fn glass_stays_glass() {
    let glass = RgbaImage::from_pixel(9, 9, Rgba([1, 2, 3, 100]));
    let mut bytes = Cursor::new(Vec::new());
    glass.write_to(&mut bytes, ImageFormat::Png).unwrap();
    let drawn = draw(bytes.get_ref(), Size::Page).unwrap();
    assert_eq!((drawn.kind, read(&drawn.bytes).to_rgba8().get_pixel(4, 4)[3]), ("image/png", 100));
}

#[test]
fn what_is_no_picture_is_refused() {
    let cases: [(&str, Vec<u8>); 8] = [
        ("nothing", vec![]),
        ("text", b"not a picture".to_vec()),
        (
            "SVG",
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>".to_vec(),
        ),
        ("PDF", b"%PDF-1.7".to_vec()),
        ("BMP, of which we have no decoder", b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0".to_vec()),
        ("TIFF", b"II*\0\x08\0\0\0".to_vec()),
        ("a PNG's first bytes alone", b"\x89PNG\r\n\x1a\n".to_vec()),
        ("a JPEG's first bytes alone", vec![0xff, 0xd8, 0xff]),
    ];
    for (why, bytes) in cases {
        assert!(draw(&bytes, Size::Thumbnail).is_err(), "{why}");
    }
}

#[test]
fn cut_and_damaged_files_are_refused_or_drawn_but_never_more() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
        let whole = file(format, 64, 64);
        for cut in (0..whole.len()).step_by(whole.len() / 40 + 1) {
            // A decoder may show what it has, or refuse; a panic would fail this test.
            if let Ok(drawn) = draw(&whole[..cut], Size::Page) {
                assert!(read(&drawn.bytes).width() <= 64);
            }
        }
        for at in (0..whole.len()).step_by(whole.len() / 60 + 1) {
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            if let Ok(drawn) = draw(&changed, Size::Thumbnail) {
                assert!(read(&drawn.bytes).width() <= 240);
            }
        }
        assert!(
            draw(&whole[..whole.len() / 3], Size::Page).is_err() || format == ImageFormat::Jpeg
        );
    }
}

/// A PNG that says it is so large, and holds next to nothing.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(4, 4);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[test]
fn pictures_too_large_to_draw_are_refused_before_they_are_unpacked() {
    for (width, height) in
        [(30_000, 10), (10, 30_000), (20_000, 20_000), (u32::MAX, u32::MAX), (10_000, 5_001)]
    {
        let refused = draw(&bomb(width, height), Size::Thumbnail);
        let limits = matches!(
            &refused,
            Err(PictureError::TooLarge
                | PictureError::Image(
                    image::ImageError::Limits(_)
                        | image::ImageError::Unsupported(_)
                        | image::ImageError::Decoding(_)
                ))
        );
        assert!(limits, "{width}x{height}: {:?}", refused.err());
    }
    // One that is as large as it says, in one colour: a thousandth of its size as a file.
    let blank = RgbImage::from_pixel(7_000, 7_200, Rgb([255, 255, 255]));
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new_with_quality(
        &mut bytes,
        image::codecs::png::CompressionType::Best,
        image::codecs::png::FilterType::NoFilter,
    );
    encoder.write_image(&blank, 7_000, 7_200, image::ExtendedColorType::Rgb8).unwrap();
    assert!(bytes.len() < 1_000_000);
    assert!(matches!(draw(&bytes, Size::Thumbnail), Err(PictureError::TooLarge)));
}

/// A JPEG that says it is so large.
fn huge_jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = file(ImageFormat::Jpeg, 16, 16);
    // The frame header: its marker, length and precision (ITU-T T.81, B.2.2).
    let frame = bytes.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

#[test]
fn a_jpeg_is_weighed_with_what_its_decoder_keeps_besides_the_points() {
    assert!(matches!(draw(&huge_jpeg(7_000, 7_000), Size::Thumbnail), Err(PictureError::TooLarge)));
    for (colour, width, height, fits, why) in [
        (ColorType::Rgb8, 5_712, 4_284, true, "a telephone's"),
        (ColorType::Rgb8, 7_000, 7_000, false, "half a gigabyte"),
        (ColorType::L8, 7_000, 7_000, true, "a scan without colours"),
    ] {
        assert_eq!(jpeg_bytes(width * height, colour) <= MAX_JPEG, fits, "{why}");
    }
}

#[test]
fn which_attachments_may_be_pictures() {
    let part = |kind: &str, name: Option<&str>, size: u64| Part {
        depth: 1,
        role: PartRole::Attachment,
        content_type: kind.to_owned(),
        charset: None,
        encoding: TransferEncoding::Base64,
        name: name.map(ToOwned::to_owned),
        content_id: None,
        header: 0..0,
        body: 0..size,
    };
    for (kind, name, size, expected) in [
        ("image/png", None, 10, true),
        ("image/jpeg", Some("x.pdf"), 10, true),
        ("image/svg+xml", Some("x.svg"), 10, false),
        ("image/tiff", Some("x.tif"), 10, false),
        ("application/octet-stream", Some("SCAN.JPG"), 10, true),
        ("application/octet-stream", Some("scan.exe"), 10, false),
        ("text/html", Some("x.png"), 10, false),
        ("image/png", None, 0, false),
        ("image/png", None, 100 << 20, false),
    ] {
        assert_eq!(is_picture(&part(kind, name, size)), expected, "{kind} {name:?} {size}");
    }
}

/// The status of the answer to a picture that is not shown.
fn status(fault: &Fault) -> StatusCode {
    let Fault::Status(status) = fault else { panic!("{fault}") };
    *status
}

#[tokio::test]
async fn a_decoder_that_panics_takes_nothing_with_it() {
    let studio = Studio::default();
    for _ in 0..AT_ONCE + 1 {
        let drawn = studio.drawn(async { Ok(vec![1]) }, |_| panic!("on purpose")).await;
        assert_eq!(status(&drawn.unwrap_err()), StatusCode::UNPROCESSABLE_ENTITY);
    }
    let png = png(4, 4);
    let drawn = studio.drawn(async { Ok(png) }, |bytes| draw(bytes, Size::Page)).await;
    assert_eq!(drawn.unwrap().kind, "image/png", "its turn came back");
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_a_turn_is_told_so() {
    let studio = Studio::default();
    let never = || studio.drawn(std::future::pending(), |bytes| draw(bytes, Size::Page));
    let (one, two, three) = tokio::join!(never(), never(), never());
    for waited in [one, two, three] {
        assert_eq!(status(&waited.unwrap_err()), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(studio.0.available_permits(), AT_ONCE, "who waits no longer holds no turn");
}
