//! Runs where `BURNMARK_TEST_BROWSER` names a Chromium, as in the gate.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{World, ran, repository};

/// Measures the page it stands in, and tells the page around it.
const PROBE: &str = r#"<script>addEventListener("load", () => {
  const all = (what) => [...document.querySelectorAll(what)];
  const box = (it) => { const { width, height } = it.getBoundingClientRect(); return [width, height]; };
  const page = document.documentElement, style = getComputedStyle(document.body);
  parent.postMessage(JSON.stringify({
    width: page.clientWidth, needed: page.scrollWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches, background: style.backgroundColor, text: style.color,
    requests: performance.getEntriesByType("resource").map((entry) => entry.name),
    rows: all("tbody").map((body) => [...body.rows].filter((row) => box(row)[1] > 0).length),
    drawings: all("svg").map(box),
  }), "*");
})</script></body>"#;

/// Shows the page in a frame of a phone's or a screen's width; a browser's own window does not get that narrow.
const FRAME: &str = r#"<!doctype html><body><pre id="seen"></pre><script>
  addEventListener("message", (it) => document.getElementById("seen").textContent = it.data);
</script><iframe src="page.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe></body>"#;

const PHONE: u32 = 390;
const SCREEN: u32 = 1280;

fn browser() -> Option<String> {
    std::env::var("BURNMARK_TEST_BROWSER").ok().filter(|browser| !browser.is_empty())
}

/// What the browser makes of a page.
fn seen(browser: &str, html: &str, width: u32, dark: bool) -> Value {
    let world = World::new();
    world.write("page.html", &html.replace("</body>", PROBE));
    let frame = world.write("frame.html", &FRAME.replace("WIDTH", &width.to_string()));
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"])
        .args(["--window-size=1400,1000", "--virtual-time-budget=5000"])
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
        .arg(format!("--user-data-dir={}", world.path("profile").display()))
        .arg(format!("file://{}", frame.display()))
        .output()
        .expect("the browser runs");
    let dom = String::from_utf8_lossy(&output.stdout);
    let text = dom.split("<pre id=\"seen\">").nth(1).and_then(|rest| rest.split("</pre>").next()).unwrap_or_default();
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {dom}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// What is wrong with a page as it was seen.
fn faults(seen: &Value, width: u32, dark: bool) -> Vec<String> {
    let list = |name: &str| seen[name].as_array().expect("a list").clone();
    let mut faults = Vec::new();
    if seen["dark"] != dark {
        faults.push(format!("the browser does not prefer dark = {dark}"));
    }
    if seen["needed"].as_f64() > Some(f64::from(width)) || seen["width"].as_f64() > Some(f64::from(width)) {
        faults.push(format!("{} pixels are needed of {width}", seen["needed"]));
    }
    if !list("requests").is_empty() {
        faults.push(format!("asks for {}", seen["requests"]));
    }
    if list("rows").is_empty() || list("rows").iter().any(|rows| *rows == 0) {
        faults.push(format!("rows of tables: {}", seen["rows"]));
    }
    let flat =
        |drawing: &Value| drawing.as_array().is_none_or(|sides| sides.iter().any(|side| side.as_f64() < Some(20.0)));
    if list("drawings").is_empty() || list("drawings").iter().any(flat) {
        faults.push(format!("drawings: {}", seen["drawings"]));
    }
    // Black on white or white on black, more or less.
    let light = |name: &str| {
        let numbers = seen[name].as_str().unwrap_or_default().split(|c: char| !c.is_ascii_digit() && c != '.');
        let channels: Vec<f64> = numbers.filter_map(|number| number.parse().ok()).take(3).collect();
        channels.iter().sum::<f64>() / 3.0
    };
    if (light("background") < light("text")) != dark {
        faults.push(format!("{} on {} where dark = {dark}", seen["text"], seen["background"]));
    }
    faults
}

fn page(results: &str) -> String {
    let world = World::new();
    let file = repository(&format!("docs/results/{results}"));
    let (code, _, err) = ran(&mut world.burnmark(&["report", &file, "--format", "html", "--output", "page.html"]));
    assert_eq!(code, 0, "{err}");
    std::fs::read_to_string(Path::new(&world.path("page.html"))).expect("it was written")
}

#[test]
fn reports_show_in_light_in_dark_and_on_a_phone() {
    let Some(browser) = browser() else { return };
    for results in ["default_flex_rounds.json", "tuning_llvmpipe.json", "cuda_h100.json"] {
        let html = page(results);
        for (width, dark) in [(SCREEN, false), (SCREEN, true), (PHONE, false), (PHONE, true)] {
            let seen = seen(&browser, &html, width, dark);
            assert_eq!(faults(&seen, width, dark), [""; 0], "{results}, {width} pixels, dark = {dark}");
        }
    }
}

#[test]
fn a_broken_page_is_found_out() {
    let Some(browser) = browser() else { return };
    let html = page("default_flex_rounds.json");
    let found = |html: &str, width, dark| faults(&seen(&browser, html, width, dark), width, dark).join("; ");
    let wide = html.replace("<h1>", "<div style=\"width: 600px\">wide</div><h1>");
    assert!(found(&wide, PHONE, false).contains("pixels are needed of 390"));
    assert_eq!(found(&wide, SCREEN, false), "", "wide enough there");
    let fetching = html.replace("<h1>", "<img src=\"https://burnmark.invalid/logo.png\"><h1>");
    assert!(found(&fetching, SCREEN, false).contains("burnmark.invalid"));
    let start = html.find("<tbody>").expect("a table") + "<tbody>".len();
    let end = start + html[start..].find("</tbody>").expect("its end");
    let empty = format!("{}{}", &html[..start], &html[end..]);
    assert!(found(&empty, SCREEN, false).contains("rows of tables: [0"));
    assert!(found(&html.replacen("<svg ", "<svg style=\"height: 0\" ", 1), SCREEN, false).contains("drawings"));
    let always_light = html.replace("color-scheme: light dark", "color-scheme: light");
    assert!(found(&always_light, SCREEN, true).contains("where dark = true"));
}
