"""Left and right in joint names: pairs worked out by hand for the spellings of tools, laboratories and languages."""

import pytest

from keras_mrpose import joint_names, skeletons
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton

# Names of one skeleton; those of a pair are written a~b.
PAIRS = {
    "glued letters": "nose lshoulder~rshoulder lhip~rhip root lower_lip rib",
    "a capital and small letters": "Lshoulder~Rshoulder Lhip~Rhip larynx",
    "a capital at the end": "shoulderL~shoulderR hipL~hipR Lip",
    "capitals of words": "LAnkle~RAnkle LBigToe~RBigToe Nose",
    "another case of one of them": "left_hip~right_Hip LEFT_knee~Right_Knee",
    "another case of a letter": "Lhip~rhip l_knee~R_Knee",
    "with and without separator": "left_shoulder~rightshoulder l_hip~rhip",
    "before and after": "left_hip~hip_right knee_l~r_knee",
    "hyphens, points": "LEFT-knee~RIGHT-knee knee.L~knee.R L.Ankle~R.Ankle r-wrist~l-wrist",
    "numbers": "knee_L_1~knee_R_1 left_toe1~right_toe1 toe2_left~toe2_right thumb.L.001~thumb.R.001",
    "words without separator": "kneeleft~kneeright lefteye~righteye LEFTear~RIGHTear topleft~topright",
    "words of camels": "leftEye~rightEye EarLeft~EarRight mixamorig:LeftArm~mixamorig:RightArm mixamorig:Hips",
    "a letter at the end": "handl~handr hipl~hipr nose",
    "one letter at the end": "handl~handr tail nose",
    "front and back": "lf_paw~rf_paw lb_paw~rb_paw ring_finger lower_paw",
    "front and rear": "fl_paw~fr_paw rl_paw~rr_paw",
    "front and rear, short": "lf~rf lr~rr",
    "front and hind, capitals": "LFP~RFP LHP~RHP TAIL",
    "front and rear in camels": "pawFL~pawFR pawRL~pawRR eyeL~eyeR",
    "AP-10K": "L_Eye~R_Eye Nose Neck L_F_Paw~R_F_Paw L_B_Paw~R_B_Paw",
    "Plug-in Gait": "LFHD~RFHD C7 T10 CLAV STRN RBAK LASI~RASI LTOE~RTOE LHEE~RHEE",
    "ears": "lear~rear",
    "ears and eyes": "lear~rear leye~reye",
    "German": "links_knie~rechts_knie linke_hand~rechte_hand li_fuss~re_fuss kopf",
    "German, another order": "knie_links~knie_rechts knielinks2~knierechts2 HandLi~HandRe",
    "Dutch": "linkerschouder~rechterschouder linkervoet~rechtervoet",
    "French": "main_gauche~main_droite pied_gauche~pied_droit épaule_gauche~Epaule_droite tête",
    "French, glued": "maingauche~maindroite piedgauche~pieddroit oeil_g~oeil_d",
    "Spanish": "mano_izquierda~mano_derecha ojo_izquierdo~ojo_derecho pie_izq~pie_der",
    "Italian": "spalla_sinistra~spalla_destra occhio_sinistro~occhio_destro piede_sx~piede_dx",
    "Portuguese": "mão_esquerda~mao_direita olho_esquerdo~olho_direito pe_esq~pe_dir",
    "Swedish": "vänster_hand~höger_hand huvud",
    "Polish": "lewa_reka~prawa_reka lewy_bark~prawy_bark",
    "Russian": "левая_рука~правая_рука левый_глаз~правый_глаз голова",
    "Chinese": "左肩~右肩 左手~右手 鼻",
    "both sides in a name": "left_of_right_eye~right_of_left_eye",
    "letters that differ in case": "left_A~right_A left_a~right_a",
    "a word and a letter": "left_hand~right_hand hand_l~hand_r",
}
# No pair, and nothing that is of one side.
NONE = (
    "lip nose ear rib root lower_lip larynx",
    "rear nose",
    "leg reg",
    "lip rip",
    "tail tair",
    "eyeLid eyeRid",
    "bleft bright",
    "upright cleft bright",
    "joint_0 joint_1 joint_2",
    "a b c d e f g h i j k l m n o p q r s",
    "point_a point_b point_c point_d point_e point_f point_g",
    " ".join(f"point{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "L5 C7 T12_L1",
    "+ - *",
)
LEFT_OVER = {
    "left_hand nose": "left_hand",
    "left_eye right_eye left_hand right_Foot": "left_hand right_Foot",
    "l_eye right_eye": "l_eye right_eye",  # a pair is spelled alike
    "left_hip right_hip lshoulder LKnee r_foot": "lshoulder LKnee r_foot",
    "left_hip right_hip finger_d re_arm L5": "",
    "lpaw_lnail rpaw_lnail lpaw_rnail": "lpaw_rnail",  # a joint has one partner
    "left_eye right_ear": "left_eye right_ear",
    "handLeft nose": "handLeft",
    "lefthand nose": "lefthand",
    "main_gauche nez": "main_gauche",
    "L_Eye R_Eye L_Hand L5 T12_L1 Lumbar_L4": "L_Hand",  # vertebrae have numbers
    "hand_li hand_re fuss_li": "fuss_li",
    "lshoulder rshoulder rknee rear lower_back": "rknee",
    "lf_paw rf_paw lb_paw lower_paw ring_finger": "lb_paw",
    "handl handr hipl hipr footl pedal": "footl",
}


def split(text):
    """Joints, and index pairs of them."""
    joints = text.replace("~", " ").split()
    return joints, {tuple(sorted(map(joints.index, each.split("~")))) for each in text.split() if "~" in each}


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs(kind):
    joints, pairs = split(PAIRS[kind])
    for order in (1, -1):
        listed = joints[::order]
        found = {frozenset((listed[a], listed[b])) for a, b in joint_names.flip_pairs_of(listed)}
        assert found == {frozenset((joints[a], joints[b])) for a, b in pairs}
        assert joint_names.one_sided(listed) == ()


@pytest.mark.parametrize("joints", NONE)
def test_letters_alone_are_no_side(joints):
    assert joint_names.flip_pairs_of(joints.split()) == ()
    assert joint_names.one_sided(joints.split()) == ()


@pytest.mark.parametrize("joints", LEFT_OVER)
def test_left_over(joints):
    assert joint_names.one_sided(joints.split()) == tuple(LEFT_OVER[joints].split())


def test_pairs_are_sorted_and_names_may_have_spaces():
    assert joint_names.flip_pairs_of(["r eye", "Foot (left)", "nose", "l eye", "Foot (right)"]) == ((0, 3), (1, 4))


def test_names_in_one_spelling():
    """By itself `lhip` is nothing known; beside `rhip` it is the left hip."""
    assert joint_names.canonical_names(["lhip", "rhip", "Top Of Head"]) == ("left_hip", "right_hip", "head_top")
    assert joint_names.canonical_names(["lhip"]) == ("lhip",)
    assert joint_names.canonical_names(["links_hip", "UpperArmR", "+", "-"]) == (
        "left_hip",
        "right_upper_arm",
        "+",
        "-",
    )
    assert joint_names.canonical_names(["lf_paw", "rf_paw", "lear", "rear"]) == (
        *("left_f_paw", "right_f_paw", "left_ear", "right_ear"),
    )


# --- skeletons ----------------------------------------------------------------------------------------------------

SHORT = ("nose", "lshoulder", "rshoulder", "rhip", "lhip")


def test_a_skeleton_has_the_pairs_of_its_names():
    short = Skeleton("short", SHORT)
    assert short.flip_pairs == ((1, 2), (3, 4)) and short.flip_indices == (0, 2, 1, 4, 3)
    assert short.torso == (3, 1) and short.upper_body == (0, 1, 2)
    assert short.sides == (None, "left", "right", "right", "left")
    assert short.mirrored() == "lshoulder/rshoulder, rhip/lhip; unchanged: nose"
    assert Skeleton("pair", SHORT[1:3]).mirrored() == "lshoulder/rshoulder"
    assert Skeleton("short", SHORT, ()).mirrored() == "unchanged: nose, lshoulder, rshoulder, rhip, lhip"
    assert skeletons.joint_map(short, skeletons.COCO)[5:7] == (1, 2)


@pytest.mark.parametrize(
    ("joints", "problem"),
    [
        (("a", "b", "c"), r"says of no joint which is left or right \(a, b, c\)"),
        (("a", "b", "c", "d"), r".*left or right \(a, b, c, \.\.\.\)"),
        (("lip", "rear"), "says of no joint"),
        (("left_eye", "right_eye", "left_hand"), "has no other side for left_hand;"),
        (("left_eye", "right_ear"), "has no other side for left_eye, right_ear;"),
    ],
)
def test_mirroring_needs_to_know_left_and_right(joints, problem):
    with pytest.raises(InputError, match=rf"^A test exchanges .* skeleton 'mine' {problem}") as caught:
        Skeleton("mine", joints).check_mirroring("A test", "test=False")
    assert '"flip_pairs", [] if no joint changes' in str(caught.value) and "without: test=False." in str(caught.value)
    Skeleton("mine", joints, ()).check_mirroring("A test", "test=False")
    Skeleton("mine", joints, ((0, 1),)).check_mirroring("A test", "test=False")


@pytest.mark.parametrize(
    "skeleton", [*skeletons.SKELETONS.values(), Skeleton("short", SHORT)], ids=lambda one: one.name
)
def test_who_is_known_may_be_mirrored(skeleton):
    skeleton.check_mirroring("A test", "test=False")
    assert joint_names.flip_pairs_of(skeleton.joints) == skeleton.flip_pairs and skeleton.one_sided == ()
