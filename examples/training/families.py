"""Everyday names for families of ImageNet's classes, written by hand: "a bird" is the mean of the bird rows.

A classifier of 1,000 classes knows 118 breeds of dog and no dog. Each line below gives names that people use and the classes (numbers of
ImageNet-1k, ranges included) whose rows together stand for them. Things that no class shows by itself but that are seen in the pictures of
some (a person in a suit, in a jersey, beside a bridegroom) are given by those.
"""

from __future__ import annotations

from typing import Final

_TABLE: Final = """
animal, creature, wild animal: 0-397
fish, bony fish: 0-1, 389-397
shark: 2-4
ray: 5-6
bird, fowl: 7-24, 80-100, 127-146
songbird, small bird, perching bird, sparrow: 10-20
finch: 10-12
chicken, hen, poultry, rooster: 7-8
bird of prey, raptor, eagle, hawk, falcon: 21-23
owl: 24
grouse, game bird, pheasant: 80-83, 85-86
parrot, cockatoo: 87-90
duck, waterfowl: 97-98
water bird, wading bird: 97-100, 127-146
swan, goose: 99-100
stork, heron, egret, crane bird: 127-128, 131-134
seabird, gull, seagull, albatross: 146
penguin: 145
amphibian: 25-32
salamander, newt: 25-29
frog, toad: 30-32
reptile: 33-68
turtle, tortoise: 33-37
lizard: 38-48
crocodile, alligator: 49-50
dinosaur: 51
snake, serpent: 52-68
insect, bug: 300-326
spider, arachnid: 70, 72-77
scorpion: 71
beetle: 300-307
butterfly, moth: 321-326
fly, housefly: 308
bee, wasp: 309
grasshopper, cricket insect, locust: 311-312
dragonfly, damselfly: 319-320
crab: 118-121, 125
lobster, crayfish, shrimp, prawn: 122-124
crustacean: 118-126
mollusc, shell, seashell: 112-117
worm: 110-111
mammal: 101-106, 147-299, 330-388
marsupial, kangaroo: 104-106
whale, dolphin: 147-148
seal, sea lion, walrus: 150
dog, puppy, hound: 151-268
wolf, coyote: 269-272
hyena: 276
fox: 277-280
cat, kitten, house cat: 281-285
big cat, wild cat: 286-293
lion: 291
tiger: 292
leopard, panther, jaguar: 288-290
bear: 294-297
polar bear: 296
mongoose: 298-299
rabbit, bunny, hare: 330-332
rodent, mouse animal, rat: 333, 335-338
squirrel: 335
hedgehog, porcupine: 334
horse, pony, stallion: 339, 603
zebra: 340
pig, hog, boar: 341-343
hippo: 344
cow, cattle, bull, calf: 345-347
sheep, lamb, goat: 348-350
antelope, deer: 351-353
camel, llama, giraffe: 354-355, 340, 351-353
weasel, ferret, otter: 356-360
ape, great ape: 365-369
monkey: 370-382
lemur: 383-384
primate: 365-384
elephant: 101, 385-386
panda: 387-388
person, human, human being, people: 981-983, 834, 610, 608, 652, 639, 445, 841, 617, 400, 578, 869
man, boy, guy: 981-982, 834, 610, 608, 652, 906, 457
woman, girl, lady: 445, 578, 638-639, 655, 689, 399, 614, 459
child, kid, baby: 529, 516, 431, 443, 680, 610
face, human face: 837, 836, 643, 903, 551, 629, 452
hair: 903, 584, 585
athlete, player, sportsman: 981, 610, 615, 560, 752
soldier: 652, 465, 413, 439, 715
swimmer, diver: 983, 433, 801, 842
clothes, clothing, garment, outfit: 399-400, 474, 501, 568, 578, 608, 610, 614, 617, 652, 655, 689, 735, 834, 841, 869, 887
shirt, T-shirt, sweater: 610, 841, 474
coat, jacket: 568, 617, 869, 474
dress, skirt: 578, 601, 655, 689, 614
trousers, pants, jeans: 608, 697
hat, cap: 439, 452, 515, 808, 793, 433, 667, 518
helmet: 518, 560, 715
shoe, footwear, boot: 514, 502, 630, 770, 774
sock, stocking: 806, 496
glove: 658
tie, necktie: 906, 451, 457
suit: 834
swimsuit, bathing suit: 445, 638-639, 842
glasses, eyeglasses, spectacles: 836-837
jewellery, jewelry: 679, 584
bag, handbag, purse: 748, 636, 414
backpack, rucksack: 414
suitcase, luggage, briefcase, trunk: 492, 636, 748
wallet: 893
umbrella, parasol: 879
vehicle: 407, 408, 436, 468, 511, 555, 569, 573, 575, 586, 603, 609, 612, 627, 654, 656, 661, 665, 670, 675, 690, 717, 734, 751, 757, 779, 802, 803, 817, 829, 847, 864, 866, 867, 870, 874
car, automobile, motorcar: 436, 468, 511, 609, 627, 656, 661, 751, 817
truck, lorry: 555, 569, 675, 717, 864, 867
van: 654, 656, 675, 734
bus, coach: 654, 779, 874
train, locomotive, railway: 466, 547, 565, 705, 820, 829
bicycle, bike, cycle: 444, 671, 870
motorcycle, motorbike: 665, 670
wheel, tyre, tire: 479, 535, 694
airplane, aeroplane, aircraft, plane, jet: 404, 895, 908
helicopter: 895, 404
boat, ship, vessel: 403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 871, 914
sailboat, sailing boat, yacht: 484, 780, 871, 914
canoe, kayak: 472, 693
submarine: 833
tractor, farm machine: 595, 866, 856
tank: 847
rocket, missile: 657, 744, 812
traffic light, stoplight: 920
sign, stop sign, road sign: 919
parking meter: 704
fire hydrant, hydrant: 571, 707
bench, park seat: 703
building, house, home: 410, 425, 449, 483, 497, 580, 660, 663, 668, 698, 762, 858, 853
tower: 437, 900, 442
church, temple, mosque: 497, 663, 668, 832
castle, palace: 483, 698
bridge: 821, 839, 888
shop, store, market: 415, 454, 467, 509, 582, 788, 860, 865
fence: 489, 716, 912
wall: 825
roof: 853, 858
door: 799, 877
window: 904, 905
stairs, staircase, railing: 421
furniture: 423, 453, 493, 495, 526, 532, 548, 553, 559, 564, 703, 765, 831, 857, 894
chair, seat, armchair: 423, 559, 765, 857
table, dining table, kitchen table: 532, 526, 736
desk: 526
couch, sofa, settee: 831
bed: 564, 831, 516, 520, 750
pillow, cushion: 721
blanket, quilt, bedspread: 750
shelf, bookcase, bookshelf: 453, 454, 624
cupboard, cabinet, wardrobe, dresser: 493, 495, 648, 894, 553
drawer: 493, 553, 526
curtain, drape: 794, 854, 905, 789
carpet, rug, mat: 539, 741
lamp, light: 846, 619, 818, 862
mirror: 475
candle: 470
clock, watch, timepiece: 409, 530, 531, 892, 826
vase, jar: 883, 725
potted plant, houseplant, flowerpot: 738, 580
toilet, lavatory: 861
sink, basin: 896
bathtub, tub, bath: 435, 876
shower: 793, 794
towel: 434, 700
soap, shampoo, lotion: 804, 631, 838
toothbrush, brush: 696, 840
hair dryer, hair drier: 589
kitchen appliance: 827, 859, 651, 760, 534, 897
oven, stove, cooker: 827, 766, 544
microwave: 651
refrigerator, fridge, freezer: 760
toaster: 859
dishwasher: 534
kettle, teapot, coffee pot: 505, 849
pot, pan, saucepan: 544, 567, 909, 521, 469
bowl, dish: 659, 809, 923
plate: 923
cup, mug, teacup: 504, 968, 441
wine glass, drinking glass, goblet: 572, 966, 441
bottle, flask: 440, 720, 737, 898, 907
jug, pitcher: 725, 899, 901
can, tin: 653, 412, 463
spoon, ladle: 618, 910, 813
knife, blade: 499, 623
fork, cutlery, silverware, utensil: 618, 813, 910, 499
scissors, shears: 499, 477, 473
basket: 588, 790
box, carton, crate, package: 478, 492, 519, 692
bin, trash can, dustbin, rubbish bin: 412
bucket, pail: 463
tool: 462, 477, 587, 596, 726, 740, 783, 784, 792, 813, 783
hammer: 587
saw: 491
screwdriver: 784
drill: 740
shovel, spade: 792
broom, mop: 462, 840
weapon: 413, 456, 471, 763, 764
gun, pistol, firearm: 413, 763, 764
computer: 527, 590, 620, 664, 681
laptop: 620, 681
computer screen, monitor, display: 664, 782, 851
keyboard: 508, 878
computer mouse: 673
printer, copier: 713, 742
television, TV, TV set: 851, 664, 782, 548, 598
remote, remote control: 761
telephone, phone: 487, 528, 707
cell phone, mobile phone, smartphone: 487, 590, 605
camera: 732, 759, 622
speaker, loudspeaker: 632
radio, stereo: 754, 482, 485
microphone: 650
musical instrument: 401-402, 420, 432, 486, 513, 541, 546, 558, 566, 579, 594, 641, 642, 683, 687, 699, 776, 822, 875, 881, 889
guitar: 402, 546, 420
piano: 579, 881
violin, cello, fiddle: 486, 889
drum: 541, 822
trumpet, horn, trombone: 513, 566, 875
flute, wind instrument: 432, 558, 683
book, magazine: 917, 921, 624, 454, 922
newspaper, paper, page: 916, 917, 918, 922
pen, pencil: 418, 563, 749, 709
letter, envelope: 549
toy, doll: 850, 865, 865
teddy bear, stuffed animal, plush toy: 850
ball, sports ball: 429, 430, 522, 574, 722, 768, 805, 852, 890
baseball bat, baseball glove: 429, 981
football, soccer: 805, 768
tennis racket, racket: 752, 852
golf: 574, 575
ski, skis: 795
snowboard, sled, sledge: 795, 450, 537
skateboard, scooter: 670, 870, 795
surfboard, paddle: 693, 977, 978
frisbee, disc: 746, 923
kite toy: 701, 417
balloon: 417
parachute: 701
tent: 672, 915
flag: 557
food, meal: 924-969, 987
fruit: 948-957
vegetable: 936-946
apple: 948
orange, citrus fruit, lemon: 950-951
banana: 954
grape, berry, strawberry: 949, 952
pear, peach: 948, 952, 956
carrot, root vegetable, radish: 945, 943, 939, 987
cabbage, lettuce, salad: 936-938
broccoli, cauliflower: 937-938
cucumber, courgette: 939, 943
pumpkin, squash, gourd: 940-942, 607
tomato, pepper: 945
potato: 935
corn, maize: 987, 998
mushroom, fungus, toadstool: 947, 991-997
bread, loaf: 930-932
sandwich, burger, hamburger: 933, 934, 965
hot dog, sausage: 934
pizza: 963
cake, pastry, pie, dessert: 927, 964, 960, 509, 415
donut, doughnut, cookie, biscuit: 931, 932, 415
ice cream: 928-929
soup, stew: 925, 926, 809
pasta, spaghetti, noodles: 959
meat: 962, 467
coffee, tea: 504, 505, 967, 968
wine, drink, beverage: 966, 907, 572, 441
beer: 440-441
plant, flower, blossom: 984-986, 883, 738
tree, leaf, forest: 988-990, 912, 970
grass, hay, field: 958, 984, 998
nut, seed: 988-990
mountain, hill, peak: 970, 980, 979
rock, stone, cliff: 972, 825, 976
beach, shore, coast, sand: 975-978
water, sea, ocean, lake: 975-978, 973, 536
sky, cloud: 970, 979, 701
snow, ice: 970, 537, 795, 802
road, street: 919-920, 829, 468
city, skyline: 698, 839, 873
coral, reef: 973, 109, 108
"""  # noqa: E501


def families() -> tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]:
    """Returns `(names, class numbers of ImageNet-1k)` for every family, in the order of the table."""
    found = []
    for line in _TABLE.strip().splitlines():
        names, numbers = line.rsplit(":", 1)
        found.append((tuple(name.strip() for name in names.split(",")), _numbers(numbers)))
    return tuple(found)


def _numbers(text: str) -> tuple[int, ...]:
    """`"2-4, 7"` -> `(2, 3, 4, 7)`."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(found))
