//! The examples in C, C++ and C#: compiled, run, and compared with Rust.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The folder with the library `padim_c`: that of this test.
fn libraries() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    assert!(folder.join(library()).exists(), "no {} in {}", library(), folder.display());
    folder
}

fn library() -> String {
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    format!("{prefix}padim_c{suffix}")
}

/// Runs a command; `None`, with a message, if there is no such program on this machine.
fn run(command: &mut Command) -> Option<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("not tested: there is no {program}");
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{program} failed: {out}{err}");
    Some(out.into_owned())
}

/// Compiles an example in C or C++.
fn compiled(compiler: &str, standard: &str, source: &str, folder: &Path) -> Option<PathBuf> {
    let program = folder.join(source.replace('.', "-"));
    let mut command = Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-I"]);
    command.arg(here("include")).arg(here("examples").join(source)).arg("-o").arg(&program);
    command.arg("-L").arg(libraries()).arg("-lpadim_c");
    command.arg(format!("-Wl,-rpath,{}", libraries().display()));
    run(&mut command).map(|_| program)
}

#[test]
fn programs_in_c_cpp_and_csharp_score_as_rust() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("part.padim");
    let detector = common::detector();
    detector.save(&saved).unwrap();
    let pictures = common::pictures(folder.path());
    let mut tables = Vec::new();
    for (compiler, standard, source) in
        [("gcc", "-std=c11", "inspect.c"), ("g++", "-std=c++17", "inspect.cpp")]
    {
        if let Some(program) = compiled(compiler, standard, source, folder.path()) {
            let out = run(Command::new(program).arg(&saved).args(&pictures)).unwrap();
            tables.push((source, out));
        }
    }
    let program = folder.path().join("Inspect.exe");
    let mut compile = Command::new("mcs");
    compile.arg("-warnaserror").arg(format!("-out:{}", program.display()));
    compile.arg(here("csharp/Padim.cs")).arg(here("csharp/Inspect.cs"));
    if run(&mut compile).is_some() {
        let mut command = Command::new("mono");
        command.env("LD_LIBRARY_PATH", libraries()).arg(program).arg(&saved).args(&pictures);
        if let Some(out) = run(&mut command) {
            tables.push(("Inspect.cs", out));
        }
    }
    for (source, out) in tables {
        let mut lines = out.lines().filter(|line| !line.starts_with(' '));
        for path in &pictures {
            let expected = detector.predict(path).unwrap();
            let verdict = if expected.is_defective.unwrap() { "defective" } else { "good" };
            let line = lines.next().unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(words[0], path.to_str().unwrap(), "{source}");
            assert_eq!(words[1].parse::<f32>().unwrap(), expected.image_score, "{source}: {line}");
            assert_eq!(*words.last().unwrap(), verdict, "{source}: {line}");
        }
        assert!(out.contains("  region: row "), "{source}: {out}");
        println!("{source}:\n{out}");
    }
}

#[test]
fn a_program_in_c_fits_calibrates_and_finds_a_spot() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compiled("gcc", "-std=c11", "fit.c", folder.path()) else { return };
    let saved = folder.path().join("part.padim");
    let out = run(Command::new(program).arg(&saved)).unwrap();
    assert!(out.contains("defective"), "{out}");
    assert!(saved.exists());
}

/// An error comes as an exception or a message, not as a crash.
#[test]
fn programs_tell_errors() {
    let folder = tempfile::tempdir().unwrap();
    for (compiler, standard, source) in
        [("gcc", "-std=c11", "inspect.c"), ("g++", "-std=c++17", "inspect.cpp")]
    {
        let Some(program) = compiled(compiler, standard, source, folder.path()) else { continue };
        let output = Command::new(program).args(["missing.padim", "a.png"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{source}: {text}");
        assert!(text.contains("missing.padim"), "{source}: {text}");
    }
}

/// The programs of `docs/deployment.md`.
#[test]
fn the_programs_of_the_document_run() {
    let document = std::fs::read_to_string(here("../../docs/deployment.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let detector = common::detector();
    detector.save(folder.path().join("part.padim")).unwrap();
    common::defective().save(folder.path().join("part.png")).unwrap();
    let expected = detector.predict(common::defective()).unwrap().image_score;
    for (language, compiler, arguments) in [
        ("c", "gcc", &["-std=c11", "-Wall", "-Wextra", "-Werror", "-x", "c"][..]),
        ("cpp", "g++", &["-std=c++17", "-Wall", "-Wextra", "-Werror", "-x", "c++"]),
        ("csharp", "mcs", &[]),
    ] {
        let (_, rest) = document.split_once(&format!("```{language}\n")).unwrap();
        let (code, _) = rest.split_once("```").unwrap();
        assert!(code.lines().count() <= 20, "{language} takes more than 20 lines");
        let [source, program] = [format!("{language}.txt"), format!("{language}.exe")]
            .map(|name| folder.path().join(name));
        std::fs::write(&source, code).unwrap();
        let mut compile = Command::new(compiler);
        if language == "csharp" {
            compile.arg(format!("-out:{}", program.display())).arg(&source);
            compile.arg(here("csharp/Padim.cs"));
        } else {
            compile.args(arguments).arg(&source).args(["-x", "none", "-o"]).arg(&program).arg("-I");
            compile.arg(here("include")).arg("-L").arg(libraries()).arg("-lpadim_c");
        }
        if run(&mut compile).is_none() {
            continue;
        }
        let mut command = match language {
            "csharp" => {
                let mut command = Command::new("mono");
                command.arg(program);
                command
            }
            _ => Command::new(program),
        };
        command.env("LD_LIBRARY_PATH", libraries()).current_dir(folder.path());
        let Some(out) = run(&mut command) else { continue };
        let (score, verdict) = out.trim().split_once(' ').unwrap();
        assert_eq!(score.parse::<f32>().unwrap(), expected, "{language}: {out}");
        assert_eq!(verdict, "1", "{language}: {out}");
    }
}
