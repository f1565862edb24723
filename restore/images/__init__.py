"""Image files <-> `Image`: pixels in their own dtype, alpha, EXIF, ICC, XMP, format.

Reads PNG, JPEG, WebP, TIFF, BMP, AVIF, JPEG 2000, JPEG XL, QOI, PNM (HEIC with the extra `heic`, camera raws with
`raw`); writes all but those two. A file that is damaged, incomplete, animated or has several pages is an `ImageError`
of one line, never half a picture; what a picture does not keep of its file is in its `notes`.

    image = read_image("photo.jpg")
    write_image(image.with_array(restored), Path("photo.denoised.jpg"))
"""

from restore.images.finding import find_images
from restore.images.formats import FORMATS, SUFFIXES, WRITABLE
from restore.images.image import Image, JpegCoding
from restore.images.reading import image_size, open_tiff, read_image
from restore.images.writing import encode_image, rows_note, writable_suffix, write_image, write_rows

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "WRITABLE",
    "Image",
    "JpegCoding",
    "encode_image",
    "find_images",
    "image_size",
    "open_tiff",
    "read_image",
    "rows_note",
    "writable_suffix",
    "write_image",
    "write_rows",
]
