"""Clips, sounds and pictures in and out of files (PyAV). The only part of the project that touches containers.

One reader serves training and scoring. Its rules:

Which stream
    The one that ffmpeg's libavformat holds for the best: by its default flag, then by what it contains. A cover picture
    is no video. Sound comes from the programme of the pictures, where both are read.
Whose clock
    The pictures' own times and durations. A rate in a header is looked at only where a picture has no time. Time zero
    is the first picture that is shown; sound is placed by its own timestamps, so that an offset between the streams, an
    encoder's priming or a gap survives as what it is. Where timestamps start anew within a file, a stream read alone
    goes on where it ended; both together are refused. `Clip.fps` is for show: the pictures' number over their duration.
How long
    Up to the end of the last picture: for as long as the file says, else for as long as pictures usually last in it.
    What an edit list or a cut leaves out is not shown. Sound is as long as it is; a clip that must have both may lack
    SOUND_SLACK of it, which becomes silence.
On a grid
    Each tick takes the picture nearest in time, but none that begins more than half a tick later.
Which way up
    As the whole display matrix says, mirrors included, by quarters of a turn. A picture whose size changes within the
    file is brought to the first one's.
Which channels
    All, mixed to mono with the weights of ffmpeg's `-ac 1`, never louder than full scale: stereo is averaged. Blocks of
    other rates and layouts within a sound are each read as what they are; the sound has the highest of the rates.
What is refused, as a MediaError with its reason
    A required stream that is missing or cannot be decoded; a corrupt picture; a file that ends before its own outermost
    sizes or its index say (streams such as ts, mp3 or ogg hold no such promise: they are as long as they are), or holds
    a second one behind the first, out of reach; channels that cancel each other out in mono for a second; sample rates
    outside RATES; pixels of absurd shapes; what would unfold to more than LARGEST; and whatever only points at other
    files or addresses (playlists, SDP). Trouble of the machine is raised as what it is.

Every write is whole or not at all.
"""

from ccl.media.browser import Look, look
from ccl.media.clip import Clip, is_pictures, is_sound
from ccl.media.errors import LARGEST, MediaError
from ccl.media.read import SOUND_SLACK, first_picture, read_audio, read_channels, read_clip, read_natural
from ccl.media.resampling import FFMPEG, TORCHAUDIO, resample
from ccl.media.shown import is_shown, write_encoded, write_shown
from ccl.media.sound import RATES
from ccl.media.still import fit_image, gif_bytes, read_image, write_png
from ccl.media.write import write_clip, write_wav

__all__ = [
    "FFMPEG",
    "LARGEST",
    "RATES",
    "SOUND_SLACK",
    "TORCHAUDIO",
    "Clip",
    "Look",
    "MediaError",
    "first_picture",
    "fit_image",
    "gif_bytes",
    "is_pictures",
    "is_shown",
    "is_sound",
    "look",
    "read_audio",
    "read_channels",
    "read_clip",
    "read_image",
    "read_natural",
    "resample",
    "write_clip",
    "write_encoded",
    "write_png",
    "write_shown",
    "write_wav",
]
