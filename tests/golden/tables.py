"""Known values of the papers' equations, computed apart from the package."""

ATTENTION = {  # lambda: weights of the scores 0, 1, 2, 3
    0.0: (0.25, 0.25, 0.25, 0.25),
    0.3: (0.1508, 0.2036, 0.2748, 0.3709),
    1.0: (0.0321, 0.0871, 0.2369, 0.6439),
}

FBP_U = ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (0.7, 0.8, 0.9, 1.0, 1.1, 1.2))
FBP_V = ((1.2, 1.1, 1.0, 0.9, 0.8, 0.7), (0.6, 0.5, 0.4, 0.3, 0.2, 0.1))
FBP_A, FBP_B = (1.0, -2.0), (0.5, 1.5)
FBP_SUM = (-3.77, -3.09, -2.09)
FBP_L2 = (-0.710826, -0.582614, -0.394065)
FBP_POWER_L2 = (-0.649022, -0.587581, -0.483239)

FCN_COLUMNS = {67: 1, 100: 2, 131: 3, 200: 5, 300: 8, 400: 11, 600: 17, 800: 23}  # audio steps: columns
FCN_ROWS = 5  # of 200 bins
FCN_PARAMETERS = {"alexnet": 3_723_968, "torchvision": 2_454_208}
RESNET18_PARAMETERS = 11_176_512  # the public 11,689,512 without the 512 x 1000 classifier
