"""The table of datasets: the loader, the command line, `data check` and the tests read it. One module each."""

from fer_fast.data.faces import load_faces
from fer_fast.data.labels import CLASSES
from fer_fast.data.sources import affectnet, ckplus, expw, fer2013, ferplus, folder, mmi, oulu_casia, rafdb
from fer_fast.data.table import DatasetInfo

DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="faces",
            classes=CLASSES,
            description="generated faces, drawn by the package: no download, any size, 7 or 8 classes",
            draw=load_faces,
        ),
        fer2013.INFO,
        ferplus.INFO,
        rafdb.INFO,
        rafdb.COMPOUND_INFO,
        affectnet.INFO,
        affectnet.INFO_7,
        ckplus.INFO,
        oulu_casia.INFO,
        mmi.INFO,
        expw.INFO,
        folder.INFO,
    )
}
