"""What belongs to one user: taken out as a file, or forgotten everywhere.

`places` says where the database holds something of a user, `copies` what lies in files. `exporting`
writes all of it into one file, `forgetting` deletes it, with a receipt.
"""

from hyperfeast.users.exporting import Exported, export_user
from hyperfeast.users.forgetting import Forgotten, forget_user
from hyperfeast.users.places import OnlineFeatures

__all__ = ["Exported", "Forgotten", "OnlineFeatures", "export_user", "forget_user"]
