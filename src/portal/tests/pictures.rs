//! Attached pictures: small in the list, alone in the viewer, and never as they came.
use super::{
    super::picture,
    assert_whole_page,
    world::{Browser, Kept, World},
};
use data_encoding::BASE64;

const ANN: &str = "ann@clinic.example";

fn attached(files: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut text =
        "Subject: Scans\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee.\r\n"
            .to_owned();
    for (kind, name, bytes) in files {
        text += &format!(
            "--b\r\nContent-Type: {kind}\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{}\r\n",
            BASE64.encode(bytes)
        );
    }
    (text + "--b--\r\n").into_bytes()
}
async fn opened<'a>(world: &'a World, message: &[u8]) -> (Browser<'a>, Kept) {
    let kept = world.keep(ANN, message).await;
    (world.registered(ANN, &kept).await, kept)
}

#[tokio::test]
async fn pictures_are_small_in_the_list_and_large_in_the_viewer() {
    let world = World::new();
    let png = [picture::png(600, 300).as_slice(), b"<script>behind</script>"].concat();
    let jpeg = picture::file("jpeg");
    let message = attached(&[
        ("image/png", "first <b>.png", &png),
        ("application/pdf", "paper.pdf", b"%PDF"),
        ("application/octet-stream", "second.JPG", &jpeg),
        ("image/svg+xml", "drawing.svg", b"<svg/>"),
    ]);
    let (mut browser, kept) = opened(&world, &message).await;
    let page = browser.get(&kept.page()).await.text();
    assert_whole_page(&page, true);
    for number in [1, 3] {
        assert!(page.contains(&format!("/attachments/{number}/view\"")), "{page}");
        assert!(page.contains(&format!("/attachments/{number}/thumbnail\"")), "{page}");
    }
    assert!(page.contains("alt=\"View first &lt;b&gt;.png\""), "{page}");
    assert_eq!(page.matches("<img").count(), 2, "what is no picture has none");

    for (size, width) in [("thumbnail", 240), ("picture", 600)] {
        let answer = browser.get(&format!("{}/attachments/1/{size}", kept.page())).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(picture::width_of(&answer.body), width);
        assert!(!answer.body.windows(6).any(|w| w == b"behind"), "drawn anew");
    }
    let answer = browser.get(&format!("{}/attachments/3/picture", kept.page())).await;
    assert_eq!(answer.header("content-type"), Some("image/jpeg"));
    let original = browser.get(&format!("{}/attachments/1", kept.page())).await;
    assert!(original.body == png, "the download is as it came");
    assert!(original.header("content-disposition").unwrap().starts_with("attachment"));

    let view = browser.get(&format!("{}/attachments/1/view", kept.page())).await.text();
    assert_whole_page(&view, true);
    assert!(
        view.contains("alt=\"first &lt;b&gt;.png\"") && view.contains("Picture 1 of 2"),
        "{view}"
    );
    assert!(
        view.contains("/attachments/3/view\">Next picture") && !view.contains("Previous"),
        "{view}"
    );
    let view = browser.get(&format!("{}/attachments/3/view", kept.page())).await.text();
    assert!(
        view.contains("/attachments/1/view\">Previous picture") && !view.contains("Next picture"),
        "{view}"
    );
    for number in ["2", "4", "0", "9", "x"] {
        for what in ["view", "picture", "thumbnail"] {
            let path = format!("{}/attachments/{number}/{what}", kept.page());
            assert_eq!(browser.get(&path).await.status, 404, "{path}");
        }
    }
}

#[tokio::test]
async fn what_only_says_it_is_a_picture_is_not_shown_and_can_be_downloaded() {
    let world = World::new();
    let cut = &picture::png(300, 300)[..60];
    let message = attached(&[
        ("image/png", "page.png", b"<html><script>alert(1)</script></html>"),
        ("image/png", "cut.png", cut),
        ("image/png", "drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ]);
    let (mut browser, kept) = opened(&world, &message).await;
    for number in 1..=3 {
        for what in ["picture", "thumbnail"] {
            let answer = browser.get(&format!("{}/attachments/{number}/{what}", kept.page())).await;
            assert_eq!(answer.status, 422, "{number} {what}");
            assert!(!answer.text().contains("alert(1)"));
        }
        assert_eq!(
            browser.get(&format!("{}/attachments/{number}/view", kept.page())).await.status,
            200
        );
        assert_eq!(browser.get(&format!("{}/attachments/{number}", kept.page())).await.status, 200);
    }
}

#[tokio::test]
async fn many_ask_for_pictures_at_once_and_all_are_served() {
    let world = World::new();
    let png = picture::png(900, 900);
    let (browser, kept) = opened(&world, &attached(&[("image/png", "a.png", &png)])).await;
    let path = format!("{}/attachments/1/thumbnail", kept.page());
    let asked = (0..12).map(|_| async {
        let mut other = world.browser();
        other.cookies = browser.cookies.clone();
        other.get(&path).await.status
    });
    assert_eq!(futures_util::future::join_all(asked).await, [200; 12]);
}
