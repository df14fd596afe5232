//! What senders write, and what is left of it.
use super::{clean, framed, level, level::TAGS, shown_target, sources, text};
use crate::language::Languages;
use proptest::prelude::*;

fn page(html: &str) -> String {
    let clean = clean(&level(html, &|| true).unwrap())
        .unwrap_or_else(|| panic!("far larger: {}", html.get(..200).unwrap_or(html)));
    let picture =
        |source: &str| source.starts_with("cid:good").then(|| "data:image/png;base64,OURS".into());
    let languages = Languages::new("en", &[]).unwrap();
    framed(&clean, false, &picture, languages.usual())
}
/// The page without what stands in every page.
fn shown(html: &str) -> String {
    let page = page(html);
    let (_, body) = page.split_once("formatting</h1>\n").unwrap();
    body.strip_suffix("\n</body></html>\n").unwrap().to_owned()
}
fn as_text(html: &str) -> String {
    text(&level(html, &|| true).unwrap())
}

const BAD: &[&str] = &[
    "<script>alert(1)</script>",
    "<scr<script>ipt>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src=https://evil.example/pixel.gif>",
    "<img src='//evil.example/pixel.gif'>",
    "<img srcset='https://evil.example/a 1x, https://evil.example/b 2x'>",
    "<picture><source srcset=https://evil.example/a><img src=https://evil.example/b></picture>",
    "<img src='data:image/svg+xml,<svg onload=alert(1)>'>",
    "<img src='data:image/png;base64,AAAA'>",
    "<img src=cid:unknown>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=' \u{1}java\nscript:alert(1)'>x</a>",
    "<a href='vbscript:alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<a href='cid:x'>x</a>",
    "<a href=https://good.example ping=https://evil.example>x</a>",
    "<iframe src=https://evil.example></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<form action=https://evil.example><input name=p><button formaction=https://evil.example>x</button></form>",
    "<style>@import url(https://evil.example)</style>",
    "<style>body{background:url(https://evil.example)}</style>",
    "<link rel=stylesheet href=https://evil.example>",
    "<link rel=prefetch href=https://evil.example>",
    "<link rel=dns-prefetch href=//evil.example>",
    "<meta http-equiv=refresh content='0;https://evil.example'>",
    "<base href=https://evil.example>",
    "<table background=https://evil.example/x></table>",
    "<body background=https://evil.example/x onload=alert(1)>",
    "<div style='background-image:url(https://evil.example)'>x</div>",
    "<div style='background:url(https://evil.example)'>x</div>",
    "<div style='color:red;background-color:url(https://evil.example)'>x</div>",
    "<ul style='list-style-image:url(https://evil.example)'><li>x</ul>",
    "<div style='behavior:url(https://evil.example)'>x</div>",
    "<div style='width:expression(alert(1))'>x</div>",
    "<div style='position:fixed;top:0'>x</div>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><image href=https://evil.example /></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<video src=https://evil.example poster=https://evil.example></video>",
    "<audio src=https://evil.example></audio>",
    "<object data=https://evil.example></object>",
    "<embed src=https://evil.example>",
    "<title><img src=x onerror=alert(1)></title>",
    "<textarea><img src=x onerror=alert(1)></textarea>",
    "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\"></noscript>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<p title='https://evil.example'>x</p>",
    "<blockquote cite=https://evil.example>x</blockquote>",
    "<plaintext><script>alert(1)</script>",
];

#[test]
fn html_loses_what_acts_or_calls_home() {
    for html in BAD {
        let body = shown(html).to_lowercase();
        for never in [
            "<script",
            "<img src",
            "evil.example",
            "onerror",
            "onload",
            "javascript:",
            "vbscript:",
            "<iframe",
            "<form",
            "<input",
            "<button",
            "<svg",
            "data:",
            "cid:",
            "<link",
            "<meta",
            "<base",
            "<style",
            "<title",
            "position",
            "url(",
            "expression",
            "srcset",
            "ping",
            "title=",
        ] {
            assert!(!body.contains(never), "{html} → {body}");
        }
    }
}

#[test]
fn html_keeps_looks_links_and_our_own_pictures() {
    let kept = shown(
        "<html><head><title>gone</title></head><body><h1 style='color:red'>Hi</h1>\
         <a href=https://a.example/>x</a><img src=cid:good alt=seal><img src=cid:bad alt='a scan'>\
         <table border=1><tr><td bgcolor=blue>t",
    );
    for part in [
        "<h2 style=\"color:red\">Hi</h2>",
        "href=\"https://a.example/\"",
        "rel=\"noopener noreferrer\"",
        "target=\"_blank\"",
        "alt=\"seal\"",
        "src=\"data:image/png;base64,OURS\"",
        "<img alt=\"a scan\">",
        "bgcolor=\"blue\"",
        "<td",
    ] {
        assert!(kept.contains(part), "{part}: {kept}");
    }
    let style =
        "color:RGB(1,2,3);background-color:#fff;width:calc(1px);height:\\75 rl(x);margin:1px";
    let styled = shown(&format!("<p style='{style}'>x</p>"));
    for part in ["color:", "background-color:#fff", "margin:1px"] {
        assert!(styled.contains(part), "{part}: {styled}");
    }
    assert!(!styled.contains("calc") && !styled.contains("height"), "{styled}");
    assert!(!kept.contains("gone"));
    assert_eq!(page("<h1>x</h1>").matches("<h1").count(), 1, "the page has one first heading");
}

#[test]
fn pictures_are_asked_for_once_and_so_many() {
    let html = clean(
        &level("<img src=cid:a><img src=cid:b><img src=cid:a><img src=https://c>", &|| true)
            .unwrap(),
    )
    .unwrap();
    assert_eq!(sources(&html, 9), ["cid:a", "cid:b"]);
    assert_eq!(sources(&html, 1), ["cid:a"]);
}

/// HTML, the label behind its link, and why.
const LINKS: &[(&str, Option<&str>, &str)] = &[
    ("<a href=https://clinic.example/x>Your results</a>", Some("clinic.example"), "words"),
    ("<a href=https://evil.example/>https://clinic.example</a>", Some("evil.example"), "a lie"),
    ("<a href=https://evil.example/>clinic.example</a>", Some("evil.example"), "a lie in short"),
    ("<a href=https://clinic.example/x>clinic.example</a>", None, "told by its words"),
    ("<a href=https://clinic.example/x>https://clinic.example/y</a>", None, "the same host"),
    ("<a href=https://www.clinic.example/>Clinic.Example</a>", None, "the same but for www"),
    (
        "<a href=https://clinic.example@evil.example/>clinic.example</a>",
        Some("evil.example"),
        "a name as user",
    ),
    (
        "<a href=https://evil.example/>https://evil.example@clinic.example</a>",
        Some("evil.example"),
        "a user in the words",
    ),
    (
        "<a href='https://evil.example\\@clinic.example'>clinic.example</a>",
        Some("evil.example"),
        "a backslash is a slash",
    ),
    (
        "<a href=https://clinic.example:8443/>clinic.example</a>",
        Some("clinic.example:8443"),
        "another port",
    ),
    (
        "<a href=https://clіnic.example/>clіnic.example</a>",
        Some("xn--clnic-o2e.example"),
        "letters that look alike",
    ),
    (
        "<a href=https://evil.example/><img alt=https://clinic.example></a>",
        Some("evil.example"),
        "a picture",
    ),
    (
        "<a href=https://evil.example/><span style=display:none>evil.example</span>clinic.example</a>",
        Some("evil.example"),
        "hidden words",
    ),
    (
        "<a href=https://evil.example/>clinic.example evil.example</a>",
        Some("evil.example"),
        "two names",
    ),
    ("<a href=mailto:a@clinic.example>a@clinic.example</a>", None, "a mailbox"),
    (
        "<a href=mailto:x@evil.example>a@clinic.example</a>",
        Some("x@evil.example"),
        "another mailbox",
    ),
    (
        "<a href='mailto:a@clinic.example?bcc=x@evil.example'>a@clinic.example</a>",
        Some("a@clinic.example"),
        "it brings more along",
    ),
    ("<a href=tel:+4912345>+49 123-45</a>", None, "a number"),
    ("<a href=tel:+4999999>+49 123-45</a>", Some("+4999999"), "another number"),
    ("<a name=x>an anchor</a>", None, "no link"),
    ("<a href=/relative>x</a>", None, "leads nowhere, and is taken out"),
];

#[test]
fn links_tell_where_they_lead() {
    let label = |host: &str| format!("<bdi class=\"target\" dir=\"ltr\">[{host}]</bdi>");
    for (html, expected, why) in LINKS {
        let body = shown(html);
        let found = body
            .split_once("<bdi class=\"target\" dir=\"ltr\">[")
            .and_then(|(_, rest)| rest.split_once("]</bdi>"));
        assert_eq!(found.map(|(host, _)| host), *expected, "{why}: {body}");
        if let Some(host) = expected {
            assert!(body.contains(&format!("</a>{}", label(host))), "{why}: {body}");
        }
    }
    let forged = shown("<bdi class=target>[clinic.example]</bdi>");
    assert!(!forged.contains("class"), "nobody else makes a label: {forged}");
}

#[test]
fn as_text_a_link_has_its_target_behind_it() {
    let long = format!("<a href=https://clinic.example/{}>here</a>", "x".repeat(400));
    let cases = [
        (
            "<p>See <a href=https://clinic.example/a?b=1&amp;c=2>here</a>.</p>",
            "See here <https://clinic.example/a?b=1&c=2>.",
        ),
        ("<a href=https://clinic.example/>clinic.example</a>", "clinic.example"),
        (
            "<a href=https://evil.example/>https://clinic.example/</a>",
            "https://clinic.example/ <https://evil.example/>",
        ),
        (&long, "here [clinic.example]"),
        ("<a href=mailto:a@b.example>write</a>", "write <a@b.example>"),
        ("<a href=javascript:alert(1)>x</a>", "x"),
        ("<div>one</div><div>two</div>", "one\ntwo"),
        ("<ul><li>one\n  more</li><li>two</li></ul>", "\u{2022} one more\n\u{2022} two"),
        ("<table><tr><td>a<td>b<tr><td>c</table>", "a b\nc"),
        (
            "<style>p{}</style><script>x()</script><title>t</title>One &amp; &lt;two&gt;",
            "One & <two>",
        ),
    ];
    for (html, expected) in cases {
        let said = as_text(html);
        let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.join("\n"), expected, "{html}");
    }
}

/// Depth and number of elements.
fn measure(html: &str) -> (usize, usize) {
    let page = scraper::Html::parse_fragment(html);
    let all = page.tree.nodes().filter(|node| node.value().is_element());
    let depths = all.map(|node| node.ancestors().count());
    depths.fold((0, 0), |(deepest, count), depth| (deepest.max(depth), count + 1))
}

#[test]
fn what_is_written_to_exhaust_a_parser_comes_out_small() {
    let many = |n: usize, each: &dyn Fn(usize) -> String| (0..n).map(each).collect::<String>();
    let long = many(9, &|n| format!("x{n}={} ", "y".repeat(8_000)));
    let fonts = |n: usize| many(n, &|_| format!("<font {long}>"));
    let colours = many(12, &|n| format!("<font color=\"{n}{}\">", "0".repeat(900)));
    let cases = [
        ("rows between words", format!("<p>{}<table>", fonts(12)) + &"x<tr></tr>".repeat(3_000)),
        (
            "rows between words, in colours",
            format!("<p>{colours}<table>") + &"x<tr></tr>".repeat(3_000),
        ),
        (
            "formatting straight in a table",
            format!("<table>{}", fonts(12)) + &"x<tr></tr>".repeat(3_000),
        ),
        ("the same in a group", format!("<table><tbody>{colours}") + &"x<tr></tr>".repeat(3_000)),
        ("the same in a row", format!("<table><tr>{colours}") + &"<td></td>x".repeat(3_000)),
        ("the same in columns", format!("<table><colgroup>{colours}") + &"x<col>".repeat(3_000)),
        ("a table in a table", format!("<table>{colours}") + &"<table>x</table>".repeat(3_000)),
        ("cells without a table", format!("<p>{colours}<td><div>") + &"<p>x</p>".repeat(3_000)),
        (
            "a heading in a heading",
            format!("<h1><div>{colours}<h1><h2></h2></h1>") + &"<p>x</p>".repeat(3_000),
        ),
        ("a link in a link", format!("<a>{colours}<a></a></a>") + &"<p>x</p>".repeat(3_000)),
        (
            "bytes where there is no picture",
            many(12, &|_| format!("<font src=data:{}>", "y".repeat(90_000)))
                + &"<p>x".repeat(3_000),
        ),
        ("deep boxes", many(100_000, &|_| "<div>".into())),
        ("deep lists", many(100_000, &|_| "<ul><li>".into())),
        ("deep tables", many(20_000, &|_| "<table><tr><td>".into())),
        ("boxes closed from a table", many(20_000, &|_| "<div><table></div></table>".into())),
        ("formatting that nothing ends", many(50_000, &|n| format!("<b id={n}>"))),
        (
            "formatting opened again in each paragraph",
            many(20_000, &|n| format!("<font color={n}>")) + &many(60_000, &|_| "<p>x".into()),
        ),
        ("formatting across paragraphs", many(20_000, &|n| format!("<p><b id={n}>x</p>"))),
        (
            "misnested formatting",
            many(20_000, &|_| "<a href=https://x.example><b><p></a></b>".into()),
        ),
        ("many tags", many(200_000, &|_| "<br>".into())),
        ("many attributes", format!("<p {}>x</p>", many(5_000, &|n| format!("a{n}=1 ")))),
        ("a long attribute", format!("<p lang={}>x</p>", "x".repeat(500_000))),
        ("an open tag", "<a href=\"".to_owned() + &"x".repeat(500_000)),
        ("open comments", "<!--".repeat(100_000)),
        ("end tags alone", "</div></p></b></table>".repeat(30_000)),
    ];
    for (why, html) in cases {
        let level = level(&html, &|| true).unwrap();
        let (depth, count) = measure(&level);
        // A parser puts groups around columns and rows.
        assert!(depth < 150 && count < 41_000, "{why}: {depth} deep, {count} elements");
        let page = page(&html);
        assert!(page.len() < 3_000_000, "{why}: {}", page.len());
    }
}

#[test]
fn what_grows_beyond_bounds_while_it_is_sanitised_is_given_up() {
    let fonts: String =
        (0..12).map(|n| format!("<font color=\"{n}{}\">", "0".repeat(300))).collect();
    // Not level: a parser opens the formatting again for each word.
    let html = format!("<p>{fonts}<table>") + &"x<tr></tr>".repeat(2_000);
    assert_eq!(clean(&html), None);
    let links = "<a href=https://x.example/>x</a>".repeat(20_000);
    assert!(clean(&links).is_some(), "what is added to links is no harm");
}

/// Names of the elements that HTML means, without those that stand around rows and columns whether
/// they are written or not.
fn elements(html: &str) -> Vec<String> {
    let page = scraper::Html::parse_fragment(html);
    let names = page.tree.nodes().filter_map(|node| node.value().as_element());
    let names = names.map(|element| element.name().to_owned());
    names.filter(|name| !matches!(name.as_str(), "html" | "body" | "tbody" | "colgroup")).collect()
}

proptest! {
    #[test]
    fn a_parser_finds_in_level_html_what_is_written_there(
        row in proptest::collection::vec((0..TAGS.len(), 0..5_u8), 0..60)
    ) {
        let tag = |(at, what): (usize, u8)| match what {
            0 => format!("</{}>", TAGS[at]),
            1 => "x".to_owned(),
            2 => format!("<{}>", ["a", "font", "p", "table", "tr", "td", "h1", "li"][at % 8]),
            _ => format!("<{}>", TAGS[at]),
        };
        let html: String = row.into_iter().map(tag).collect();
        let level = level(&html, &|| true).unwrap();
        let mut written: Vec<String> = level
            .split('<')
            .skip(1)
            .filter(|tag| !tag.starts_with('/'))
            .filter_map(|tag| Some(tag.split_once('>')?.0.to_owned()))
            .filter(|name| !matches!(name.as_str(), "tbody" | "colgroup"))
            .collect();
        let mut found = elements(&level);
        found.sort_unstable();
        written.sort_unstable();
        prop_assert_eq!(found, written, "{} → {}", html, level);
        prop_assert_eq!(level.matches('x').count(), html.matches('x').count());
    }
}

#[test]
fn what_lies_beyond_the_bounds_keeps_its_words() {
    let html = "<div>".repeat(500) + "the end";
    assert!(shown(&html).contains("the end"));
    let html = "<table><tr>".to_owned() + &"<td>".repeat(30_000) + "</tr>the end";
    assert!(shown(&html).ends_with("</table>the end"), "a table that is full ends");
    let html = "<br>".repeat(50_000) + "the end<p>of it</p>";
    assert!(shown(&html).contains("the end\nof it"), "and its words stay apart");
}

#[test]
fn reading_ends_when_it_is_told_to() {
    let html = "x".repeat(100_000);
    let asked = std::cell::Cell::new(0);
    let go_on = || {
        asked.set(asked.get() + 1);
        asked.get() < 3
    };
    assert_eq!(level(&html, &go_on), None);
    assert_eq!(asked.get(), 3);
}

#[test]
fn level_html_reads_as_it_did() {
    let cases = [
        ("<p>one<p>two", "<p>one</p><p>two</p>"),
        ("<ul><li>a<li>b</ul>c", "<ul><li>a</li><li>b</li></ul>c"),
        ("<dl><dt>a<dd>b<dt>c</dl>", "<dl><dt>a</dt><dd>b</dd><dt>c</dt></dl>"),
        (
            "<table><tr><td>a<td>b<tr><td>c</table>",
            "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>",
        ),
        (
            "<table><tr><td><p>a<table><tr><td>b</table>c</table>",
            "<table><tr><td><p>a</p><table><tr><td>b</td></tr></table>c</td></tr></table>",
        ),
        ("<table><tr><td>a</div>b</table>", "<table><tr><td>ab</td></tr></table>"),
        ("<table> <tr>a<td>b</table>", "<table> <tr><td>a</td><td>b</td></tr></table>"),
        ("<table><b>a</b><td>b</table>", "<table><tr><td><b>a</b></td><td>b</td></tr></table>"),
        (
            "<table><caption>a<col><col><thead><th>b<tbody><td>c<tr>",
            "<table><caption>a</caption><col><col><thead><tr><th>b</th></tr></thead>\
             <tbody><tr><td>c</td></tr><tr></tr></tbody></table>",
        ),
        (
            "<table><tr><td><table></td>a</table>b",
            "<table><tr><td><table><tr><td>a</td></tr></table>b</td></tr></table>",
        ),
        ("a<tr><td>b</td></tr>", "a\n\nb"),
        ("<h1>a<h2>b</h2>", "<h1>a</h1><h2>b</h2>"),
        ("<a>a<a>b</a>", "<a>a</a><a>b</a>"),
        ("<b><i>x</b>y</i>", "<b><i>x</i></b>y"),
        ("a<br/>b<hr>c", "a<br>b<hr>c"),
        ("<script><b>x</script><svg><b>y</b></svg><svg/>z", "z"),
        ("<blink>a</blink>&amp;&lt;b&gt;\u{e9}", "a&amp;&lt;b&gt;\u{e9}"),
        ("<p class='a&quot;b' x:y=1>t", "<p class=\"a&quot;b\">t</p>"),
    ];
    for (html, expected) in cases {
        assert_eq!(level(html, &|| true).unwrap(), expected, "{html}");
    }
}

#[test]
fn a_target_is_told_in_full_and_in_short() {
    let shown = shown_target("https://u:p@Evil.example:99/a b", None).unwrap();
    assert_eq!(
        (shown.short.as_str(), shown.whole.as_str()),
        ("evil.example:99", "https://u:p@evil.example:99/a%20b")
    );
    assert_eq!(shown_target("", None), None);
    assert_eq!(shown_target("http://[", None).unwrap().short, "unknown");
    assert!(
        TAGS.iter()
            .all(|tag| !matches!(*tag, "form" | "svg" | "style" | "script" | "map" | "area"))
    );
}
