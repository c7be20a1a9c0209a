"""What the loader finds in each public layout, and what it says of rows it cannot use."""

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import numpy as np
import pandas as pd
import pytest

from boneage.data import sources
from boneage.data.decode import decode_grey, read_bytes
from boneage.data.phantom import make_dataset
from boneage.data.splits import split
from boneage.errors import BoneageError

PICTURE = np.random.default_rng(0).integers(0, 255, (20, 16), np.uint8)


def png(level: int = 0) -> bytes:
    return cv2.imencode(".png", np.roll(PICTURE, level))[1].tobytes()


def write(path: Path, content: bytes | str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = png() if content is None else content
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def plain(root: Path, table: str, *images: str) -> sources.Source:
    """A folder of one CSV and some images, looked into."""
    write(root / "labels.csv", table)
    for image in images:
        write(root / image)
    return sources.find(root)


def problem(found: sources.Source) -> str:
    assert len(found.table) == 0
    return found.problems["problem"].item()


# --- the three layouts of docs/data.md


def test_the_layout_of_kaggle(tmp_path):
    write(tmp_path / "boneage-training-dataset.csv", "id,boneage,male\n1377,180,False\n1378,12,True\n")
    write(tmp_path / "boneage-test-dataset.csv", "Case ID,Sex\n4360,M\n4361,F\n")
    for i in (1377, 1378):
        write(tmp_path / "boneage-training-dataset" / "boneage-training-dataset" / f"{i}.png")
    for i in (4360, 4361):
        write(tmp_path / "boneage-test-dataset" / "boneage-test-dataset" / f"{i}.png")
    found = sources.find(tmp_path)
    assert len(found.problems) == 0
    table = found.table.set_index("id")
    assert table["male"].to_dict() == {"1377": 0, "1378": 1, "4360": 1, "4361": 0}
    assert table["months"].fillna(-1).to_dict() == {"1377": 180, "1378": 12, "4360": -1, "4361": -1}
    assert table["subset"].to_dict() == {"1377": "train", "1378": "train", "4360": "test", "4361": "test"}
    assert not found.phantom


@pytest.fixture
def rsna(tmp_path) -> Path:
    """RSNA's archives side by side: training images zipped, validation images in two zips, test images unpacked."""
    root = tmp_path / "rsna"
    train = [str(i) for i in range(1377, 1397)]
    rows = "\n".join(f"{i},{60 + int(i) % 90},{i[-1] in '02468'}" for i in train)
    write(root / "train.csv", f"id,boneage,male\n{rows}\n")
    zipped(root / "boneage-training-dataset.zip", {f"boneage-training-dataset/{i}.png": png(int(i)) for i in train}
           | {"__MACOSX/boneage-training-dataset/._1377.png": b"junk"})  # fmt: skip
    folder = root / "Bone Age Validation Set"
    write(
        folder / "Validation Dataset.csv",
        "Image ID,male,Bone Age (months)\n2000,TRUE,165.9\n2001,FALSE,23.1\n2002,FALSE,80\n",
    )
    zipped(folder / "boneage-validation-dataset-1.zip", {"boneage-validation-dataset-1/2000.png": png(1)})
    zipped(
        folder / "boneage-validation-dataset-2.zip",
        {f"boneage-validation-dataset-2/{i}.png": png(i) for i in (2001, 2002)},
    )
    folder = root / "Bone Age Test Set"
    ages = pd.DataFrame({"Case ID": [4360, 4361], "Sex": ["M", "F"], "Ground truth bone age (months)": [168.93, 60]})
    write(folder / "x")
    ages.to_excel(folder / "Bone age ground truth.xlsx", index=False)
    for i in (4360, 4361):
        write(folder / "Test Set Images" / f"{i}.png")
    return root


def test_the_layout_of_rsna(rsna):
    found = sources.find(rsna)
    assert found.problems.empty
    assert found.table["subset"].value_counts().to_dict() == {"train": 20, "validation": 3, "test": 2}
    table = found.table.set_index("id")
    assert table.loc["2000", ["months", "male", "subset"]].tolist() == [165.9, 1, "validation"]
    assert table.loc["4360", ["months", "male", "subset"]].tolist() == [168.93, 1, "test"]
    assert table.loc["4361", ["months", "male"]].tolist() == [60.0, 0]
    np.testing.assert_array_equal(decode_grey(read_bytes(table.loc["1390", "path"])), np.roll(PICTURE, 1390))


def test_rsna_test_images_with_ages_never_train(rsna):
    made = split(sources.find(rsna).table).set_index("id")["set"]
    assert made["4360"] == made["4361"] == "rsna_test"
    assert (made[["2000", "2001", "2002"]] == "validation").all()


def test_the_spreadsheet_alone_is_still_a_test_set(rsna):
    """Pointed at the test folder itself nothing in a file name says "test"; the columns do."""
    assert set(sources.find(rsna / "Bone Age Test Set").table["subset"]) == {"test"}


def test_ages_of_the_test_beside_the_table_of_kaggle(tmp_path):
    write(tmp_path / "boneage-test-dataset.csv", "Case ID,Sex\n4360,M\n4361,F\n")
    for i in (4360, 4361):
        write(tmp_path / f"{i}.png")
    for name in ("A ground truth.xlsx", "z ground truth.xlsx"):  # read before the other table, and after
        table = pd.DataFrame({"Case ID": [4360], "Sex": ["M"], "Ground truth bone age (months)": [168.9]})
        table.to_excel(tmp_path / name, index=False)
        found = sources.find(tmp_path)
        assert found.problems.empty
        assert found.table.set_index("id")["months"].fillna(0).to_dict() == {"4360": 168.9, "4361": 0}
        (tmp_path / name).unlink()


def test_tables_that_contradict_each_other_are_a_problem(tmp_path):
    write(tmp_path / "1.png")
    write(tmp_path / "a_test.csv", "id,sex\n1,M\n")
    write(tmp_path / "b_test.csv", "id,sex,boneage\n1,F,100\n")
    found = sources.find(tmp_path)
    assert found.problems.to_dict("records") == [{"id": "1", "problem": "duplicate id"}]
    assert found.table["male"].tolist() == [1]


def test_a_plain_folder(tmp_path):
    found = plain(tmp_path, "id,boneage,sex\na,100,M\nb,50.5,female\n", "x/a.jpg", "y/deep/down/b.PNG")
    assert found.table[["id", "months", "male"]].values.tolist() == [["a", 100.0, 1], ["b", 50.5, 0]]
    assert found.table["path"].tolist() == [str(tmp_path / "x" / "a.jpg"), str(tmp_path / "y/deep/down/b.PNG")]


def test_paths_instead_of_ids(tmp_path):
    found = plain(tmp_path, "path,boneage,male\nx/a.png,100,1\nnone/b.png,50,0\n", "x/a.png", "y/b.png")
    assert found.table[["id", "path"]].values.tolist() == [["a", str(tmp_path / "x" / "a.png")]]
    assert found.problems["id"].tolist() == ["b"]  # one of that name elsewhere is not taken for it
    assert "no file at" in found.problems["problem"].item()


def test_ids_and_paths(tmp_path):
    found = plain(tmp_path, "path,id,boneage,male\nx/1.png,p1,100,1\ny/1.png,p2,50,0\n", "x/1.png", "y/1.png")
    assert found.table[["id", "path"]].values.tolist() == [
        ["p1", str(tmp_path / "x/1.png")],
        ["p2", str(tmp_path / "y/1.png")],
    ]


def test_a_phantom_says_so(tmp_path):
    assert sources.find(make_dataset(tmp_path / "p", n=4, height=96)).phantom
    assert sources.phantom_note(tmp_path / "p")
    assert sources.phantom_note(tmp_path) == {}


# --- which subset


@pytest.mark.parametrize(
    ("name", "subset"),
    [
        ("labels.csv", "train"), ("train.csv", "train"), ("latest.csv", "train"), ("contest/labels.csv", "train"),
        ("boneage-test-dataset.csv", "test"), ("BoneAgeTest.csv", "test"), ("TEST.csv", "test"),
        ("my_test.csv", "test"),
        ("Bone Age Test Set/ages.csv", "test"), ("test/more/ages.csv", "test"), ("train-and-test.csv", "test"),
        ("Validation Dataset.csv", "validation"), ("valid/ages.csv", "validation"), ("test/valid.csv", "validation"),
        ("test data/train.csv", "train"),
    ],
)  # fmt: skip
def test_names_tell_the_subset_the_nearest_first(tmp_path, name, subset):
    write(tmp_path / name, "id,boneage,male\n1,100,1\n")
    write(tmp_path / "1.png")
    assert sources.find(tmp_path).table["subset"].tolist() == [subset]


@pytest.mark.parametrize("header", ["Case ID,Sex,boneage", "id,sex,Ground truth bone age (months)"])
def test_columns_of_the_official_test_outweigh_any_name(tmp_path, header):
    write(tmp_path / "train.csv", f"{header}\n1,M,100\n")
    write(tmp_path / "1.png")
    assert sources.find(tmp_path).table["subset"].tolist() == ["test"]


# --- rows that cannot be used


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,-1,M", "bone age must be a number of months above 0 and at most 240. Received: '-1'"),
        ("1,400,M", "bone age must be a number of months above 0 and at most 240. Received: '400'"),
        ("1,NaN,M", "bone age must be a number of months above 0 and at most 240. Received: 'NaN'"),
        ("1,,M", "bone age must be a number of months above 0 and at most 240. Received: ''"),
        ("1,100,X", "unknown sex"),
        ("1,100,", "unknown sex"),
        (",100,M", "empty id"),
        ("2,100,M", "missing image: no file named 2 with one of .png"),
    ],
)
def test_a_bad_row_is_named_and_left_out(tmp_path, row, message):
    found = plain(tmp_path, f"id,boneage,sex\n{row}\n", "1.png")
    assert message in problem(found)
    assert found.problems["id"].item() == row.split(",")[0]


def test_a_second_row_of_an_id_is_left_out(tmp_path):
    found = plain(tmp_path, "id,boneage,sex\n1,100,M\n1,120,M\n", "1.png")
    assert found.table["months"].tolist() == [100]
    assert found.problems.to_dict("records") == [{"id": "1", "problem": "duplicate id"}]


def test_two_images_of_one_id_are_not_chosen_between(tmp_path):
    assert "2 images bear this id" in problem(plain(tmp_path, "id,boneage,sex\n1,100,M\n", "a/1.png", "b/1.jpg"))


@pytest.mark.parametrize("ident", ["my hand 7", "007", "NA", "1.5", "ä-ö"])
def test_ids_are_kept_as_they_are(tmp_path, ident):
    found = plain(tmp_path, f"id,boneage,sex\n{ident},100,M\n", f"{ident}.png")
    assert found.table["id"].tolist() == [ident]


@pytest.mark.parametrize("cell", ["7.png", "7.PNG", " 7 ", "7.webp"])
def test_an_id_written_as_a_file_name(tmp_path, cell):
    assert plain(tmp_path, f"id,boneage,sex\n{cell},100,M\n", "7.jpg").table["id"].tolist() == ["7"]


def test_a_spreadsheet_with_blank_cells(tmp_path):
    table = pd.DataFrame({"id": [1, 2], "boneage": [100.0, None], "sex": ["M", None]})
    table.to_excel(tmp_path / "t.xlsx", index=False)
    for i in (1, 2):
        write(tmp_path / f"{i}.png")
    found = sources.find(tmp_path)
    assert found.table["id"].tolist() == ["1"]
    assert found.problems["id"].tolist() == ["2"]


def test_what_other_programs_leave_is_passed_over(tmp_path):
    for name in ("._1.png", ".ipynb_checkpoints.csv", "~$t.xlsx", "._labels.csv"):
        write(tmp_path / name, b"\0\1\2")
    write(tmp_path / "notes.csv", "day,weather\n1,sun\n")
    assert plain(tmp_path, "id,boneage,sex\n1,100,M\n", "1.png").table["id"].tolist() == ["1"]


# --- folders that cannot be used


def test_no_folder(tmp_path):
    with pytest.raises(BoneageError, match=r"no folder at .*nowhere; see docs/data\.md"):
        sources.find(tmp_path / "nowhere")


def test_no_image(tmp_path):
    with pytest.raises(BoneageError, match=r"no image in .*expected files named <id> with one of \.png"):
        plain(tmp_path, "id,boneage,sex\n1,100,M\n")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"labels\.csv is empty; expected columns id, boneage, male"),
        ("id,boneage,male\n", r"labels\.csv has no rows"),
        ("id,boneage\n1,100\n", r"lacks an id or a sex column.*Received: id, boneage"),
        ("name,boneage,male\n1,100,1\n", r"lacks an id or a sex column.*Received: name, boneage, male"),
        ("a,b\n1,2\n", r"no usable table in .*expected a CSV with columns id"),
        ('id,boneage,male\n"1,100', r"is not a readable table"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, table, message):
    with pytest.raises(BoneageError, match=message):
        plain(tmp_path, table, "1.png")


def test_a_spreadsheet_that_is_none(tmp_path):
    write(tmp_path / "ages.xlsx", "version https://git-lfs.github.com/spec/v1")
    with pytest.raises(BoneageError, match=r"ages\.xlsx is not a readable table"):
        plain(tmp_path, "id,boneage,sex\n1,100,M\n", "1.png")


# --- archives


def test_an_archive_in_an_archive_is_to_be_unpacked(tmp_path):
    zipped(tmp_path / "Bone Age Validation Set.zip", {"inner-1.zip": b"PK", "Validation Dataset.csv": b""})
    with pytest.raises(
        BoneageError, match=r"Set\.zip holds a further archive, inner-1\.zip; unpack Bone Age Val.*\.zip"
    ):
        plain(tmp_path, "id,boneage,sex\n1,100,M\n", "1.png")


def test_a_damaged_archive(tmp_path):
    whole = zipped(tmp_path / "x.zip", {"1.png": png()}).read_bytes()
    write(tmp_path / "x.zip", whole[:-30])
    with pytest.raises(BoneageError, match=r"x\.zip is not a readable zip archive"):
        plain(tmp_path, "id,boneage,sex\n1,100,M\n", "1.png")


def test_an_encrypted_archive(tmp_path):
    """Bit 0 of a member's flags says encrypted, in its own header and in the list at the end (PKWARE 4.4.4)."""
    data = bytearray(zipped(tmp_path / "x.zip", {"1.png": png()}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    write(tmp_path / "x.zip", bytes(data))
    with pytest.raises(BoneageError, match=r"x\.zip is encrypted; unpack it with its password"):
        plain(tmp_path, "id,boneage,sex\n1,100,M\n")
    with pytest.raises(BoneageError, match="the archive is encrypted"):
        read_bytes(f"{tmp_path}/x.zip!1.png")


def test_members_of_an_archive(tmp_path):
    path = zipped(tmp_path / "X.ZIP", {"a/1.png": b"one", "a/2.png": b"two"})
    assert read_bytes(f"{path}!a/1.png") == b"one"
    with pytest.raises(BoneageError, match="the file cannot be read"):
        read_bytes(f"{path}!a/3.png")
    with pytest.raises(BoneageError, match="missing image file"):
        read_bytes(f"{tmp_path}/none.zip!a/3.png")
    data = bytearray(path.read_bytes())
    data[38] ^= 255  # inside the first member: 30 bytes of header, 7 of name
    path.write_bytes(bytes(data))
    with pytest.raises(BoneageError, match="the file cannot be read"):
        read_bytes(f"{path}!a/1.png")
