//! Runs the tests in Python with the library that cargo has built for this test.

use std::process::Command;

#[test]
fn the_tests_in_python_pass() {
    let library = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/check-python");
    let output = Command::new("bash").arg(script).arg(library).output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    println!("{out}{err}");
    assert!(output.status.success(), "{}", output.status);
}
